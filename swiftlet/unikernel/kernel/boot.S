# From PVH's entry to 64-bit code; what further processors begin with; the ways into and out of interrupts and tasks.

    .section .note.pvh,"a",@note
    .balign 4
    .long 4, 4, 18                  # of "Xen": XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_entry

    .section .bss
    .balign 4096
boot_tables:                        # a PML4, a PDPT and four page directories: 4 GiB, until `paging` has made better ones
    .skip 4096 * 6
boot_stack:
    .skip 16384
boot_stack_end:

    .section .data
    .balign 16
    .globl boot_gdt
boot_gdt:                           # Intel SDM 3, 3.4.5: null, 64-bit code, data, 32-bit code
    .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cf9a000000ffff
boot_gdtr:
    .word 31
    .long boot_gdt
    .long 0
    .balign 8
    .globl further_tables, further_processors, further_next
further_tables: .quad 0             # CR3 of further processors
further_processors: .quad 0         # where their structures' addresses lie
further_next: .quad 0               # the next of them: each takes its own by one locked instruction
further_count: .quad 0
    .globl further_count

    .section .text
    .code32
    .globl pvh_entry
    .type pvh_entry, @function
pvh_entry:                          # PVH: 32-bit, flat, no paging, ebx is the address of hvm_start_info
    cli
    cld
    mov %ebx, %esi
    mov $boot_tables, %edi
    lea 0x1003(%edi), %eax          # present, writable
    mov %eax, (%edi)
    lea 0x2003(%edi), %eax
    lea 0x1000(%edi), %edx
    mov $4, %ecx
1:  mov %eax, (%edx)
    add $8, %edx
    add $0x1000, %eax
    loop 1b
    lea 0x2000(%edi), %edx
    mov $0x83, %eax                 # present, writable, of 2 MiB
    mov $2048, %ecx
1:  mov %eax, (%edx)
    add $8, %edx
    add $0x200000, %eax
    loop 1b
    mov $boot_stack_end, %esp
    mov $boot_tables, %eax
    mov $first64, %ebp
    lgdt boot_gdtr
    # on to 64-bit: eax is CR3, ebp where to go on, esp the stack (Intel SDM 3, 10.8.5)
    .type to_64, @function
to_64:
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x620, %eax                 # PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov $0xc0000080, %ecx           # IA32_EFER
    rdmsr
    or $0x900, %eax                 # LME, NXE
    wrmsr
    mov %cr0, %eax
    and $0xfffffffb, %eax           # EM off
    or $0x80010023, %eax            # PG, WP, NE, MP, PE
    mov %eax, %cr0
    ljmp $8, $1f
    .code64
1:  xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    cmpl $3, cpu_level              # below that no task uses a register of AVX
    jb 1f
    mov $1, %eax
    cpuid
    bt $26, %ecx                    # XSAVE; where it is missing `features` says so
    jnc 1f
    mov %cr4, %rax
    or $0x40000, %eax               # OSXSAVE
    mov %rax, %cr4
    mov $0xd, %eax
    xor %ecx, %ecx
    cpuid                           # eax: the states that there are (Intel SDM 1, 13.2)
    and $0xe7, %eax                 # x87, SSE, AVX, AVX-512
    xor %edx, %edx
    xor %ecx, %ecx
    xsetbv
1:  jmp *%rbp
    .type first64, @function
first64:
    mov $boot_stack_end, %esp
    mov %esi, %edi
    xor %ebp, %ebp
    call kmain
1:  cli
    hlt
    jmp 1b

    # Further processors start here in real mode: copied to 0x8000, for a start-up interrupt names a page below 1 MiB.
    .globl trampoline, trampoline_end
    .code16
    .type trampoline, @function
trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl (0x8000 + trampoline_gdtr - trampoline)
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $24, $further32
trampoline_gdtr:
    .word 31
    .long boot_gdt
trampoline_end:
    .code32
    .type further32, @function
further32:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $1, %eax
    lock xadd %eax, further_next
    cmp further_count, %eax
    jae 2f
    mov %eax, %esi
    mov further_tables, %eax
    mov $further64, %ebp
    jmp to_64
2:  cli                             # more of them than anybody has told of
    hlt
    jmp 2b
    .code64
    .type further64, @function
further64:
    mov further_processors, %rax
    mov (%rax,%rsi,8), %rdi         # its structure
    mov 16(%rdi), %rsp              # Processor.stack
    xor %ebp, %ebp
    call further_main
1:  cli
    hlt
    jmp 1b

    # switch_stack(stack, function, argument): never returns
    .globl switch_stack
    .type switch_stack, @function
switch_stack:
    mov %rdi, %rsp
    mov %rdx, %rdi
    xor %ebp, %ebp
    call *%rsi
    ud2

    # load_tables(gdtr, idtr, selector of the task state segment)
    .globl load_tables
    .type load_tables, @function
load_tables:
    lgdt (%rdi)
    lidt (%rsi)
    mov %edx, %eax
    ltr %ax
    push $8
    lea 1f(%rip), %rax
    push %rax
    lretq
1:  ret

    # reset(): a fault for which there is no table, and none for the next two (Intel SDM 3, 6.15, double faults)
    .globl reset
    .type reset, @function
reset:
    lidt no_table(%rip)
    int3

    # run_task(function, result, exception, arguments, length, output, capacity): the function's status.
    # Whoever ends the task from an interrupt lets it go on at task_aborted, with a status in rax.
    .globl run_task, task_aborted
    .type run_task, @function
run_task:
    push %rbp
    mov %rsp, %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    sub $8, %rsp
    mov %rdi, %rax
    mov %rsi, %rdi
    mov %rdx, %rsi
    mov %rcx, %rdx
    mov %r8, %rcx
    mov %r9, %r8
    mov 16(%rbp), %r9
    fninit
    ldmxcsr default_mxcsr(%rip)
    cmpl $3, cpu_level(%rip)
    jb 1f
    vzeroupper                      # a task that was ended may have left something there
1:
    mov %rsp, %gs:8                 # Processor.resume
    call *%rax
    movslq %eax, %rax
task_over:
    movq $0, %gs:8
    lea -40(%rbp), %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .type task_aborted, @function
task_aborted:
    cld
    mov %gs:8, %rsp
    lea 48(%rsp), %rbp
    jmp task_over

    .section .rodata
    .balign 4
no_table: .quad 0, 0
default_mxcsr: .long 0x1f80         # every exception masked, to nearest (Intel SDM 1, 10.2.3)

    # A vector's stub pushes the error code where the processor does not, and its number (Intel SDM 3, 6.13).
    .section .text
    .balign 16
    .globl vector_stubs
    .type vector_stubs, @function
vector_stubs:
    .set vector, 0
    .rept 64
    .balign 16
    .if (vector != 8) && (vector < 10 || vector > 14) && (vector != 17) && (vector != 21) && (vector != 29) && (vector != 30)
    push $0
    .endif
    push $vector
    jmp interrupted
    .set vector, vector + 1
    .endr

    .type interrupted, @function
interrupted:
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rdi
    cld
    call trap
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    add $16, %rsp
    iretq
