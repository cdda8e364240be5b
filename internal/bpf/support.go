package bpf

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// ErrKernel means that the running kernel cannot do it, whoever asks.
var ErrKernel = errors.New("the kernel is too old, or built without it")

// A need is something that not every kernel has. Its probe answers nil: there;
// ebpf.ErrNotSupported: not there; anything else: it could not be found out.
type need struct {
	what, since string
	probe       func() error
}

func needs() []need {
	return []need{
		{"sk_lookup programs", "Linux 5.9", func() error { return features.HaveProgramType(ebpf.SkLookup) }},
		{"BPF ring buffers", "Linux 5.8", func() error { return features.HaveMapType(ebpf.RingBuf) }},
		{"bpf_get_netns_cookie in cgroup programs", "Linux 5.7 with CONFIG_CGROUP_BPF", func() error {
			return features.HaveProgramHelper(ebpf.CGroupSock, asm.FnGetNetnsCookie)
		}},
		{"bpf_get_netns_cookie in sockops programs", "Linux 5.15 with CONFIG_CGROUP_BPF", func() error {
			return features.HaveProgramHelper(ebpf.SockOps, asm.FnGetNetnsCookie)
		}},
	}
}

// sensorNeeds are what the XDP program needs of the kernel.
func sensorNeeds() []need {
	return []need{
		{"XDP programs", "Linux 4.8", func() error { return features.HaveProgramType(ebpf.XDP) }},
		{"BPF ring buffers", "Linux 5.8", func() error { return features.HaveMapType(ebpf.RingBuf) }},
		{"tries of prefixes", "Linux 4.11", func() error { return features.HaveMapType(ebpf.LPMTrie) }},
		{"bpf_skc_lookup_tcp in XDP programs", "Linux 5.2", func() error {
			return features.HaveProgramHelper(ebpf.XDP, 99)
		}},
		{"bpf_xdp_load_bytes (frames of several pieces)", "Linux 5.18", func() error {
			return features.HaveProgramHelper(ebpf.XDP, 189)
		}},
	}
}

// plain is an error with a text for a person; cause is for errors.Is alone.
type plain struct {
	error
	cause error
}

func (p plain) Unwrap() []error { return []error{p.error, p.cause} }

// explain finds out why steering failed, if that can be known: ErrKernel with
// what is missing and since when there is any, or fs.ErrPermission with the
// capabilities. It probes only now, so that success costs nothing.
//
// A limit on locked memory, which the library suggests for any EPERM, is not
// among the reasons: Linux 5.11 took BPF out of it, and steering needs 5.15.
func explain(err error) error { return explainBy(needs(), capabilities(), err) }

func explainBy(needs []need, caps uint64, err error) error {
	for _, n := range needs {
		if errors.Is(n.probe(), ebpf.ErrNotSupported) {
			return plain{fmt.Errorf("%w: %s need %s", ErrKernel, n.what, n.since), err}
		}
	}
	has := func(c int) bool { return caps&(1<<c|1<<unix.CAP_SYS_ADMIN) != 0 } // which has the others in it
	switch {
	case !errors.Is(err, fs.ErrPermission):
		return err
	case !has(unix.CAP_BPF) || !has(unix.CAP_NET_ADMIN):
		return plain{errors.New("needs CAP_BPF and CAP_NET_ADMIN"), err}
	case !has(unix.CAP_PERFMON):
		return plain{errors.New("this kernel wants CAP_PERFMON besides CAP_BPF and CAP_NET_ADMIN"), err}
	case errors.Is(err, unix.EPERM):
		return plain{errors.New("forbidden in spite of CAP_BPF and CAP_NET_ADMIN: see to user namespace, seccomp filter and kernel lockdown"), err}
	}
	return err
}

// capabilities are the effective ones of the calling thread; none if they
// cannot be read.
func capabilities() uint64 {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
}
