package afpacket

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// blockSize is what the kernel hands over at a time: some 800 bare SYNs.
	blockSize = 128 << 10
	// blockTimeout, in milliseconds, is how long a block that is not full is
	// held back. The kernel looks at that interval, so a lone packet waits for
	// one to two of them.
	blockTimeout = 10
)

// openSocket gives a cooked packet socket with a ring of blocks blocks that
// lets nothing through yet. It is not bound to an interface: interfaces come
// and go, and one ring serves them all.
func openSocket(blocks int) (fd int, ring []byte, err error) {
	// Protocol 0: nothing is received before bind.
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, nil, socketError(err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := attach(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, nothing()); err != nil {
		return -1, nil, fmt.Errorf("afpacket: attach filter: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return -1, nil, fmt.Errorf("afpacket: TPACKET_V3 (Linux 3.2 or newer): %w", err)
	}
	req := unix.TpacketReq3{
		Block_size:     blockSize,
		Block_nr:       uint32(blocks),
		Frame_size:     snapWhole, // version 3 packs frames; these two only have to add up
		Frame_nr:       uint32(blocks * (blockSize / snapWhole)),
		Retire_blk_tov: blockTimeout,
	}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return -1, nil, fmt.Errorf("afpacket: ring of %d KiB: %w", blocks*blockSize>>10, err)
	}
	ring, err = unix.Mmap(fd, 0, blocks*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return -1, nil, fmt.Errorf("afpacket: map ring: %w", err)
	}
	// What this host sends is not for us. The filter drops it too, but with this
	// (Linux 4.20) the kernel does not even clone it.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		unix.Munmap(ring)
		return -1, nil, fmt.Errorf("afpacket: ignore outgoing packets: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL)}); err != nil {
		unix.Munmap(ring)
		return -1, nil, fmt.Errorf("afpacket: bind: %w", err)
	}
	return fd, ring, nil
}

// socketError says what to do about the errors an administrator can meet.
func socketError(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("afpacket: open packet socket: needs CAP_NET_RAW: %w", err)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("afpacket: open packet socket: this kernel has no packet sockets (load the module af_packet): %w", err)
	}
	return fmt.Errorf("afpacket: open packet socket: %w", err)
}

// join puts the sockets, of which there are several, in one fanout group: each
// packet goes to the one that spread picks.
func join(fds []int) error {
	// The kernel picks the number of the group (Linux 4.12), so that no other
	// process can hold it. A kernel that cannot ignore outgoing packets for a
	// group takes the flag all the same, and the filter does the work.
	const how = unix.PACKET_FANOUT_CBPF | unix.PACKET_FANOUT_FLAG_IGNORE_OUTGOING
	err := unix.SetsockoptInt(fds[0], unix.SOL_PACKET, unix.PACKET_FANOUT, (how|unix.PACKET_FANOUT_FLAG_UNIQUEID)<<16)
	if err != nil {
		return fmt.Errorf("afpacket: open fanout group: %w", err)
	}
	group, err := unix.GetsockoptInt(fds[0], unix.SOL_PACKET, unix.PACKET_FANOUT)
	if err != nil {
		return fmt.Errorf("afpacket: read fanout group: %w", err)
	}
	for _, fd := range fds[1:] {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, how<<16|group&0xffff); err != nil {
			return fmt.Errorf("afpacket: join fanout group: %w", err)
		}
	}
	prog, err := spread()
	if err != nil {
		return err
	}
	if err := attach(fds[0], unix.SOL_PACKET, unix.PACKET_FANOUT_DATA, prog); err != nil {
		return fmt.Errorf("afpacket: attach fanout program: %w", err)
	}
	return nil
}

// attach hands a classic program to the kernel.
func attach(fd, level, opt int, prog []bpf.RawInstruction) error {
	// bpf.RawInstruction and unix.SockFilter are both struct sock_filter.
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.SliceData(prog)))}
	return os.NewSyscallError("setsockopt", unix.SetsockoptSockFprog(fd, level, opt, &fprog))
}

// attachFilter attaches the filter for spec, a coarser one where the socket's
// option memory does not hold the exact one.
func attachFilter(fd int, spec Spec) error {
	for limit := maxInstructions; ; limit /= 2 {
		prog, err := filterWithin(spec, limit)
		if err != nil {
			return err
		}
		err = attach(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog)
		if !errors.Is(err, unix.ENOMEM) || limit <= maxInstructions/16 {
			return err
		}
	}
}

func networkOrder(v uint16) uint16 {
	b := [2]byte{byte(v >> 8), byte(v)}
	return *(*uint16)(unsafe.Pointer(&b))
}
