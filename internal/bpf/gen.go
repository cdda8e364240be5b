package bpf

// Needs clang-14 and llvm-strip-14 (Debian: clang-14, llvm-14) and no headers.
//go:generate go tool bpf2go -go-package bpf -target bpfel,bpfeb -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -Wall -Werror -nostdinc" traps traps.c
