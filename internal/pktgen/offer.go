package pktgen

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotTaken says that an interface took no more, or that something on the way
// out, such as a rule of a firewall, drops the packet: the kernel does not tell
// the two apart.
var ErrNotTaken = errors.New("pktgen: the interface does not take the packet")

// Offer builds one packet and sends its frames, as SendPacket does, but gives up
// when one is refused for longer than patience.
func (s *Sender) Offer(p Packet, patience time.Duration) error {
	frames, err := p.Frames(&s.link)
	if err != nil {
		return err
	}
	for end := time.Now().Add(patience); len(frames) > 0; {
		_, err := unix.Write(s.fd, frames[0])
		switch {
		case err == nil:
			frames = frames[1:]
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("pktgen: send: %w", err)
		case time.Now().After(end):
			return ErrNotTaken
		default:
			time.Sleep(time.Millisecond) // its queue empties by then
		}
	}
	return nil
}
