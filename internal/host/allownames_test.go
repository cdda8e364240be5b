package host

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// zone is a DNS that changes.
type zone struct {
	mu    sync.Mutex
	addrs map[string]string // of network and name, with blanks between
	dead  map[string]bool   // networks that get no answer
	delay time.Duration
	asked int // by name and network
}

func (z *zone) lookup(ctx context.Context, network, name string) ([]netip.Addr, error) {
	select {
	case <-time.After(z.delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	if z.dead[network] {
		return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	}
	list := strings.Fields(z.addrs[network+" "+name])
	if len(list) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, nil
}

func (z *zone) set(network, name, addrs string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs[network+" "+name] = addrs
}

func (z *zone) kill(networks ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.dead = make(map[string]bool)
	for _, n := range networks {
		z.dead[n] = true
	}
}

func (z *zone) questions() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked
}

const uptime = "uptime.example.net"

// allow runs f with an AllowedNames of uptime.example.net that asks z, in a bubble.
func allow(t *testing.T, z *zone, f func(a *AllowedNames)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if z.addrs == nil {
			z.addrs = make(map[string]string)
		}
		a := NewAllowedNames(AllowedNamesOptions{Lookup: z.lookup})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx) }()
		a.Set([]string{uptime})
		synctest.Wait()
		f(a)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func is(t *testing.T, a *AllowedNames, what, want string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for _, addr := range slices.SortedFunc(maps.Keys(a.Addresses()), netip.Addr.Compare) {
		got = append(got, addr.String())
	}
	if g := strings.Join(got, " "); g != want {
		t.Errorf("%s: %q, want %q", what, g, want)
	}
}

func signalled(a *AllowedNames) bool {
	select {
	case <-a.Changed():
		return true
	default:
		return false
	}
}

// An address that changed is learnt at the next asking; the old one stays an hour.
func TestAllowedNameChanges(t *testing.T) {
	z := &zone{addrs: map[string]string{"ip4 " + uptime: "192.0.2.1", "ip6 " + uptime: "2001:db8::1"}}
	allow(t, z, func(a *AllowedNames) {
		is(t, a, "at first", "192.0.2.1 2001:db8::1")
		if !signalled(a) || a.Addresses()[netip.MustParseAddr("192.0.2.1")] != uptime {
			t.Error("nobody is told, or the name is missing")
		}
		z.set("ip4", uptime, "192.0.2.2")
		z.set("ip6", uptime, "")
		time.Sleep(allowEvery)
		is(t, a, "after the change", "192.0.2.1 192.0.2.2 2001:db8::1")
		time.Sleep(allowGone)
		is(t, a, "an hour later", "192.0.2.2")
		if n := z.questions(); n > 40 {
			t.Errorf("%d questions in an hour", n)
		}
		a.Set(nil)
		is(t, a, "taken out of the file", "")
		n := z.questions()
		time.Sleep(24 * time.Hour)
		if z.questions() != n {
			t.Error("asked for nobody")
		}
	})
}

// As long as nobody answers, what was known stays, for a week; a question that
// cannot be answered is asked less and less often.
func TestAllowedNameStale(t *testing.T) {
	z := &zone{addrs: map[string]string{"ip4 " + uptime: "192.0.2.1", "ip6 " + uptime: "2001:db8::1"}}
	allow(t, z, func(a *AllowedNames) {
		z.kill("ip4", "ip6")
		time.Sleep(6 * 24 * time.Hour)
		is(t, a, "after six days", "192.0.2.1 2001:db8::1")
		if u := a.Unresolved(); len(u) != 1 || u[0] != (Unresolved{uptime, false, 2}) {
			t.Errorf("%+v", u)
		}
		if n := z.questions(); n > 2*2*6*24*12 {
			t.Errorf("%d questions in six days", n)
		}
		time.Sleep(2 * 24 * time.Hour)
		is(t, a, "after eight", "")
		z.kill()
		z.set("ip4", uptime, "192.0.2.9")
		time.Sleep(allowEvery)
		is(t, a, "answered again", "192.0.2.9 2001:db8::1")
		if u := a.Unresolved(); u != nil {
			t.Errorf("%+v", u)
		}
		// One family alone that fails takes nobody away.
		z.kill("ip6")
		time.Sleep(3 * allowGone)
		is(t, a, "without answers for AAAA", "192.0.2.9 2001:db8::1")
	})
}

// A name that does not exist is said, and is asked for soon at first: the machine
// may have started before its network.
func TestAllowedNameMissing(t *testing.T) {
	z := &zone{}
	allow(t, z, func(a *AllowedNames) {
		time.Sleep(allowAgain)
		synctest.Wait()
		if u := a.Unresolved(); len(u) != 1 || u[0] != (Unresolved{uptime, true, 0}) || !signalled(a) {
			t.Errorf("%+v", u)
		}
		z.set("ip4", uptime, "192.0.2.1")
		time.Sleep(2 * allowAgain)
		is(t, a, "a moment later", "192.0.2.1")
	})
}

// Strangers make us ask out of turn, but not at any rate; one that comes during the
// pause is asked about at its end.
func TestAllowedNameAsk(t *testing.T) {
	z := &zone{addrs: map[string]string{"ip4 " + uptime: "192.0.2.1"}, delay: 30 * time.Millisecond}
	allow(t, z, func(a *AllowedNames) {
		if !a.Ask() {
			t.Error("nothing is awaited at the start")
		}
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		if !a.Ask() {
			t.Error("nothing is awaited although nobody has taken the answers in")
		}
		if !a.Taken() || a.Taken() {
			t.Error("taken once")
		}
		before := z.questions()
		if !a.Ask() {
			t.Error("nothing is awaited during the pause")
		}
		if z.questions() != before {
			t.Error("asked during the pause")
		}
		z.set("ip4", uptime, "192.0.2.2")
		time.Sleep(allowPause)
		is(t, a, "after the pause", "192.0.2.1 192.0.2.2")
		a.Taken()
		time.Sleep(allowPause)
		z.set("ip4", uptime, "192.0.2.3")
		if !a.Ask() {
			t.Error("not asked")
		}
		time.Sleep(z.delay)
		is(t, a, "asked out of turn", "192.0.2.1 192.0.2.2 192.0.2.3")
		a.Taken()

		before = z.questions()
		for range 10_000 {
			a.Ask()
			a.Taken()
			time.Sleep(6 * time.Millisecond)
		}
		if n := z.questions() - before; n > 2*(60+2) {
			t.Errorf("%d questions in a minute of strangers", n)
		}
		z.kill("ip4", "ip6")
		time.Sleep(2 * allowEvery)
		a.Taken()
		time.Sleep(allowPause)
		if a.Ask() {
			t.Error("an answer is awaited from who does not give one")
		}
	})
}

// Whoever controls a name gets himself an exception, and nobody who is no host, nor
// any number of them.
func TestAllowedNameHostile(t *testing.T) {
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&many, " 198.18.%d.%d", i>>8, i&255)
	}
	z := &zone{addrs: map[string]string{
		"ip4 " + uptime: "0.0.0.0 127.0.0.1 224.0.0.1 255.255.255.255 240.0.0.1 169.254.0.1 192.0.2.1",
		"ip6 " + uptime: ":: ::1 ::ffff:127.0.0.1 ::ffff:192.0.2.2 ff02::1 fe80::1 2001:db8::1",
	}}
	allow(t, z, func(a *AllowedNames) {
		is(t, a, "martians", "192.0.2.1 192.0.2.2 2001:db8::1")
		if n := a.Stats().LeftOut; n != 11 {
			t.Errorf("%d left out", n)
		}
		z.set("ip4", uptime, many.String())
		time.Sleep(allowEvery)
		synctest.Wait()
		if n := len(a.Addresses()); n != maxAllowedAddr {
			t.Errorf("%d addresses", n)
		}
		z.set("ip4", uptime, "127.0.0.1")
		z.set("ip6", uptime, "")
		time.Sleep(2 * allowEvery)
		synctest.Wait()
		if u := a.Unresolved(); len(u) != 1 {
			t.Error("an answer without a host is none")
		}
	})
}

// Many names are asked at once, and none that is slow holds up the end.
func TestAllowedNameSlow(t *testing.T) {
	z := &zone{addrs: make(map[string]string), delay: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		a := NewAllowedNames(AllowedNamesOptions{Lookup: z.lookup})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx) }()
		var names []string
		for i := range 2 * maxAllowed {
			names = append(names, fmt.Sprintf("n%d.example.net", i))
		}
		begin := time.Now()
		a.Set(names)
		<-a.Changed() // all have been asked once
		if took := time.Since(begin); took > maxAllowed/allowWorkers*allowLimit {
			t.Errorf("a round took %v", took)
		}
		if s := a.Stats(); s.Asked != maxAllowed || s.Failed != maxAllowed {
			t.Errorf("%+v", s)
		}
		a.Ask()
		cancel()
		cut := time.Now()
		if err := <-ended; err != nil || time.Since(cut) > time.Second {
			t.Errorf("%v after %v", err, time.Since(cut))
		}
	})
}
