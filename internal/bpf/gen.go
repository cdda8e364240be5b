package bpf

// Needs clang-14 and llvm-strip-14 (Debian: clang-14, llvm-14) and no headers.
//go:generate go tool bpf2go -go-package bpf -target bpfel,bpfeb -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -Wall -Werror -nostdinc" traps traps.c
//go:generate go tool bpf2go -go-package bpf -target bpfel,bpfeb -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -Wall -Werror -nostdinc" peers peers.c
//go:generate go tool bpf2go -go-package bpf -target bpfel,bpfeb -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -Wall -Werror -nostdinc -mcpu=v3" -type event -type ban -type ban_key -type bucket -type spare_key -type net_ban -type counter xdp xdp.c
//go:generate go tool bpf2go -go-package bpf -target bpfel,bpfeb -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -Wall -Werror -nostdinc -mcpu=v3" -type sent_line sent sent.c
