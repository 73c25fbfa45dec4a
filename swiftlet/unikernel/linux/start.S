# From Linux's entry to the dialect, and the ways into and out of threads, tasks and signals.

    .section .text
    .globl _start
    .type _start, @function
_start:                             # System V ABI for x86-64, 3.4.1: rsp is where argc lies, the arguments behind it
    xor %ebp, %ebp
    mov %rsp, %rdi
    and $-16, %rsp
    call linux_main
    ud2

    # start_worker(flags, stack, where the parent reads its number, where it is cleared, worker): its number, or an
    # error's below zero; clone(2). What it starts has the worker for its FS and runs worker_main on the stack.
    .globl start_worker
    .type start_worker, @function
start_worker:
    mov %rcx, %r10
    mov $56, %eax
    syscall
    test %rax, %rax
    jz 1f
    ret
1:  xor %ebp, %ebp
    mov %fs:0, %rdi                 # Worker.me
    call worker_main
    ud2

    # run_task(function, result, exception, arguments, length, output, capacity): the function's status, as the
    # kernel's own. A signal that ends the task lets its thread go on at task_aborted, with a status in rax.
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
    mov %rsp, %fs:8                 # Worker.resume
    call *%rax
    movslq %eax, %rax
task_over:
    movq $0, %fs:8
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
    mov %fs:8, %rsp
    lea 48(%rsp), %rbp
    jmp task_over

    # Where a signal's handler returns to: sigreturn(2), which takes what the handler has changed of the registers.
    .globl signal_return
    .type signal_return, @function
signal_return:
    mov $15, %eax
    syscall
    ud2

    .section .rodata
    .balign 4
default_mxcsr: .long 0x1f80         # every exception masked, to nearest (Intel SDM 1, 10.2.3)
