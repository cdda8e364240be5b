package proc

import (
	"errors"
	"net"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// ErrNoHelper is returned by HelperConn in a process that StartHelper did not start.
var ErrNoHelper = errors.New("this process is no helper: the daemon starts its helper itself, there is nothing to run by hand")

// HelperConn is what the helper calls first: it returns the helper's end of the
// socket. From then on no command inherits a descriptor, and the signals that
// end the daemon (systemd sends them to every process of the unit) leave the
// helper alone: it ends when the daemon closes the socket, so that what the
// daemon still asks for while it stops is done.
func HelperConn() (*net.UnixConn, error) {
	domain, err := unix.GetsockoptInt(firstFD, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_UNIX {
		return nil, ErrNoHelper
	}
	kind, err := unix.GetsockoptInt(firstFD, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		return nil, ErrNoHelper
	}
	if err := closeOnExec(); err != nil {
		return nil, err
	}
	ownName()
	// Caught and let go, not ignored: an ignored signal would stay ignored in
	// every command, and then our time limit could not end it. Whoever was told of
	// them before, as main is, is told no more.
	signals := []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT}
	signal.Reset(signals...)
	signal.Notify(make(chan os.Signal, 1), signals...)
	return unixConn(os.NewFile(firstFD, "helper"))
}
