package bpf

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
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

// explain finds out why steering failed, if that can be known: ErrKernel with
// what is missing and since when there is any, or fs.ErrPermission with the
// capabilities. It probes only now, so that success costs nothing.
func explain(err error) error { return explainBy(needs(), err) }

func explainBy(needs []need, err error) error {
	for _, n := range needs {
		if errors.Is(n.probe(), ebpf.ErrNotSupported) {
			return fmt.Errorf("%w: %s need %s: %w", ErrKernel, n.what, n.since, err)
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("it takes CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: %w", err)
	}
	return err
}
