package proc

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// Capability is one of capabilities(7).
type Capability = cap.Value

// Capabilities that the daemon still needs once everything is open.
const (
	NetAdmin = cap.NET_ADMIN // nftables, conntrack, sock_diag of other users' sockets
	NetRaw   = cap.NET_RAW   // packet sockets on interfaces that appear later
	// NetBindService: trap sockets on ports below 1024 that appear at a reload.
	NetBindService = cap.NET_BIND_SERVICE
	// BPF: to load and attach programs and to change their maps, together with
	// CAP_NET_ADMIN.
	BPF = cap.BPF
	// DACOverride: root without it cannot make files in a folder that is another
	// user's, as /var/lib/portsentry is, or open a history that was rotated to one.
	DACOverride = cap.DAC_OVERRIDE
)

// DropTo gives up, in every thread and for good, every capability but keep: from
// the permitted, effective, inheritable, ambient and bounding sets. Nothing the
// process starts later can regain any of them (no_new_privs). The user stays who
// it is: what root owns remains open to root by ownership.
//
// Call it when sockets are open and the helper runs.
func DropTo(keep ...Capability) error {
	// What we do not have cannot be kept: whoever started us decided that.
	keep = slices.DeleteFunc(slices.Clone(keep), func(c Capability) bool {
		have, err := cap.GetProc().GetFlag(cap.Permitted, c)
		return err == nil && !have
	})
	kept := make(map[Capability]bool, len(keep))
	for _, c := range keep {
		kept[c] = true
	}
	if err := cap.ResetAmbient(); err != nil {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	// The bounding set first: lowering it takes CAP_SETPCAP. Without that it stays as
	// whoever started us wanted it, and means nothing: no_new_privs, below, keeps
	// anything outside the permitted set from coming back.
	lower, err := cap.GetProc().GetFlag(cap.Effective, cap.SETPCAP)
	if err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	var drop []Capability
	for c := range cap.MaxBits() {
		if in, err := cap.GetBound(c); lower && err == nil && in && !kept[c] {
			drop = append(drop, c)
		}
	}
	if len(drop) > 0 {
		if err := cap.DropBound(drop...); err != nil {
			return fmt.Errorf("lower the capability bounding set: %w", err)
		}
	}
	set := cap.NewSet()
	for _, flag := range []cap.Flag{cap.Permitted, cap.Effective} {
		if err := set.SetFlag(flag, true, keep...); err != nil {
			return fmt.Errorf("capability set: %w", err)
		}
	}
	if err := set.SetProc(); err != nil {
		return fmt.Errorf("drop capabilities to %q: %w", set, err)
	}
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}
