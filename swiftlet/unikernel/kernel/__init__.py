"""The unikernel: what starts a machine, runs tasks on its processors and answers requests. In the dialect of `metal`.

`boot.S` leads from the loader's entry to `main.kmain`, and each further processor to `processors.further_main`.
References: Intel SDM is the Intel 64 and IA-32 Architectures Software Developer's Manual by volume and section; Virtio
is OASIS Virtual I/O Device 1.1; PVH is Xen's "x86/HVM direct boot ABI".
"""
