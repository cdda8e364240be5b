package pktgen

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fullChecksums turns transmit checksum offload off: veth would pass ordinary
// packets on with their checksum left partial.
func (e *End) fullChecksums() error {
	if _, err := e.ethtool(unix.ETHTOOL_STXCSUM, 0); err != nil {
		return fmt.Errorf("checksum offload: %w", err)
	}
	return nil
}

// GRO switches generic receive offload. A veth end that has it on polls (NAPI)
// as a card does. What an XDP program on the other end sends back with XDP_TX
// wakes it only if it has an XDP program of its own, however.
func (e *End) GRO(on bool) error {
	var data uint32
	if on {
		data = 1
	}
	if _, err := e.ethtool(unix.ETHTOOL_SGRO, data); err != nil {
		return fmt.Errorf("pktgen: receive offload of %s: %w", e.Name, err)
	}
	return nil
}

// ethtool runs a command that takes or gives one number (struct ethtool_value of
// linux/ethtool.h) on the interface, and gives the number that comes back.
func (e *End) ethtool(cmd, data uint32) (uint32, error) {
	value := struct{ cmd, data uint32 }{cmd, data}
	err := e.NS.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		defer unix.Close(fd)
		ifreq := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [24 - unsafe.Sizeof(uintptr(0))]byte // struct ifreq is 40 bytes
		}{data: unsafe.Pointer(&value)}
		copy(ifreq.name[:], e.Name)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifreq)))
		runtime.KeepAlive(&value)
		if errno != 0 {
			return errno
		}
		return nil
	})
	return value.data, err
}
