package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// nth is one of many addresses.
func nth(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
}

var errNoName = &net.DNSError{Err: "no such host", IsNotFound: true}

// answers is what a question was answered with, in the order of the answers.
type answers struct {
	mu  sync.Mutex
	got []string
}

func (g *answers) add(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.got = append(g.got, name)
}

func (g *answers) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return fmt.Sprintf("%q", g.got)
}

// running runs n until the returned function is called.
func running(t *testing.T, n *Names) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := n.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	return func() { cancel(); <-ended }
}

func wantStats(t *testing.T, n *Names, want NamesStats) {
	t.Helper()
	if got := n.Stats(); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestNamesAreKeptForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNames(NamesOptions{Lookup: func(_ context.Context, a netip.Addr) (string, error) {
			switch a {
			case nth(1):
				return "scan.example.", nil
			case nth(2):
				return "", errNoName
			}
			return "10.0.0.1.", nil // an address for a name
		}})
		defer running(t, n)()
		var got answers
		ask := func(i int) {
			t.Helper()
			if !n.Ask(nth(i), got.add) {
				t.Errorf("no room for %v", nth(i))
			}
			synctest.Wait()
		}
		cached := func(i int, want string, wantKnown bool) {
			t.Helper()
			if name, known := n.Cached(nth(i)); name != want || known != wantKnown {
				t.Errorf("Cached(%v) = %q, %v; want %q, %v", nth(i), name, known, want, wantKnown)
			}
		}
		cached(1, "", false)
		for i := 1; i <= 3; i++ {
			ask(i)
		}
		cached(1, "scan.example", true)
		cached(2, "", true)
		cached(3, "", true)
		ask(1) // known by now: answered, nobody is asked
		if want := `["scan.example" "" "" "scan.example"]`; got.String() != want {
			t.Errorf("answers %v, want %v", &got, want)
		}
		wantStats(t, n, NamesStats{Asked: 3, Cached: 3, Unfit: 1})
		if allocs := testing.AllocsPerRun(100, func() { n.Cached(nth(1)) }); allocs != 0 {
			t.Errorf("Cached allocates %v times", allocs)
		}

		time.Sleep(nameMissing)
		cached(2, "", false)
		cached(3, "", false)
		cached(1, "scan.example", true)
		time.Sleep(nameFound - nameMissing - 1)
		cached(1, "scan.example", true)
		time.Sleep(time.Nanosecond)
		cached(1, "", false)
		if len(n.known) != 0 || n.recent.Len() != 0 {
			t.Errorf("%d and %d answers are kept for nothing", len(n.known), n.recent.Len())
		}
		ask(1)
		cached(1, "scan.example", true)
	})
}

// Answers come within two seconds of the question whatever the resolver does,
// for those who queue behind a slow one as well.
func TestNamesTakeTwoSecondsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNames(NamesOptions{Lookup: func(ctx context.Context, _ netip.Addr) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}})
		defer running(t, n)()
		const sources = 100
		var done atomic.Int32
		var worst atomic.Int64
		ask := func(i int) {
			asked := time.Now()
			ok := n.Ask(nth(i), func(name string) {
				done.Add(1)
				worst.Store(max(worst.Load(), int64(time.Since(asked))))
				if name != "" {
					t.Errorf("%v is called %q", nth(i), name)
				}
			})
			if !ok {
				t.Errorf("no room for question %d", i)
			}
		}
		for i := range sources {
			ask(i)
		}
		time.Sleep(nameLimit / 2)
		ask(sources - 1) // joins the one before
		time.Sleep(nameLimit)
		synctest.Wait()
		if done.Load() != sources+1 || time.Duration(worst.Load()) > nameLimit {
			t.Errorf("%d of %d answered, the slowest after %v", done.Load(), sources+1, time.Duration(worst.Load()))
		}
		if s := n.Stats(); s != (NamesStats{Asked: nameWorkers, Failed: sources}) {
			t.Errorf("stats %+v", s)
		}
		// The same silence is not waited for again.
		if _, known := n.Cached(nth(0)); !known {
			t.Error("that there was no answer is not known")
		}
	})
}

func TestNamesAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, answer := 0, make(chan string)
		n := NewNames(NamesOptions{Lookup: func(context.Context, netip.Addr) (string, error) {
			asked++
			return <-answer, nil
		}})
		defer running(t, n)()
		var got answers
		for range 3 {
			n.Ask(nth(1), got.add)
			synctest.Wait() // the first one is at the resolver
		}
		answer <- "one.example"
		synctest.Wait()
		if want := `["one.example" "one.example" "one.example"]`; got.String() != want || asked != 1 {
			t.Errorf("answers %v, asked %d times", &got, asked)
		}
	})
}

func TestNamesAreBounded(t *testing.T) {
	t.Run("questions at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := NewNames(NamesOptions{Lookup: func(context.Context, netip.Addr) (string, error) { return "x.example", nil }})
			defer running(t, n)()
			taken := func(from, count int) (ok int) {
				for i := range count {
					if n.Ask(nth(from+i), func(string) {}) {
						ok++
					}
				}
				return ok
			}
			if got := taken(0, 1000); got != nameBurst {
				t.Errorf("%d questions taken at once, want %d", got, nameBurst)
			}
			time.Sleep(time.Second)
			if got := taken(1000, 1000); got != nameRate {
				t.Errorf("%d questions taken a second later, want %d", got, nameRate)
			}
			// What is known costs nothing.
			if got := taken(0, nameBurst); got != nameBurst {
				t.Errorf("%d of %d known names given", got, nameBurst)
			}
			synctest.Wait()
			wantStats(t, n, NamesStats{Asked: nameBurst + nameRate, Refused: 2000 - nameBurst - nameRate})
		})
	})
	t.Run("who waits", func(t *testing.T) {
		n := NewNames(NamesOptions{})
		for i := range maxAwaited + 1 {
			if n.Ask(nth(1), func(string) {}) != (i < maxAwaited) {
				t.Fatalf("question %d", i)
			}
		}
	})
	t.Run("what waits before Run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := NewNames(NamesOptions{})
			taken := 0
			for i := range 2 * nameQueue {
				if n.Ask(nth(i), func(string) {}) {
					taken++
				}
				time.Sleep(time.Second)
			}
			if taken != nameQueue {
				t.Errorf("%d questions queued, want %d", taken, nameQueue)
			}
		})
	})
	t.Run("answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := NewNames(NamesOptions{Lookup: func(context.Context, netip.Addr) (string, error) { return "x.example", nil }})
			defer running(t, n)()
			const more = 10
			for i := range maxNames + more {
				n.Cached(nth(0)) // in use, so it stays
				if !n.Ask(nth(i), func(string) {}) {
					t.Fatalf("no room for question %d", i)
				}
				synctest.Wait()
				time.Sleep(time.Second / nameRate)
			}
			if len(n.known) != maxNames || n.recent.Len() != maxNames {
				t.Errorf("%d and %d answers kept, want %d", len(n.known), n.recent.Len(), maxNames)
			}
			for i, want := range map[int]bool{0: true, 1: false, more: false, more + 1: true, maxNames + more - 1: true} {
				if _, known := n.Cached(nth(i)); known != want {
					t.Errorf("number %d known: %v, want %v", i, known, want)
				}
			}
		})
	})
}

// When Run ends, everybody who waits is told.
func TestNamesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNames(NamesOptions{Lookup: func(ctx context.Context, _ netip.Addr) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}})
		stop := running(t, n)
		var got answers
		for i := range nameWorkers + 3 {
			n.Ask(nth(i), got.add)
		}
		synctest.Wait()
		stop()
		if len(got.got) != nameWorkers+3 {
			t.Errorf("%d answers", len(got.got))
		}
		if n.Ask(nth(99), got.add) {
			t.Error("a question was taken after the end")
		}
	})
}

// The question goes out as DNS and comes back; a server that answers with
// rubbish, with nothing or not at all gives no name.
func TestLookupPTR(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go servePTR(server, map[string]string{
		"7.113.0.203.in-addr.arpa.": "scan.example.",
		"8.113.0.203.in-addr.arpa.": "two words.example.",
		"9.113.0.203.in-addr.arpa.": "10.77.0.34.evil.",
		"7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.": "six.example.",
		"99.113.0.203.in-addr.arpa.": "silent",
	})
	n := NewNames(NamesOptions{Lookup: lookupPTR(&net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", server.LocalAddr().String())
	}})})
	defer running(t, n)()
	type answer struct{ addr, name string }
	got := make(chan answer)
	want := map[string]string{
		"203.0.113.7": "scan.example", "2001:db8::7": "six.example",
		"203.0.113.8": "", "203.0.113.9": "", "203.0.113.10": "", "203.0.113.99": "",
	}
	for a := range want {
		if !n.Ask(addr(a), func(name string) { got <- answer{a, name} }) {
			t.Fatalf("no room for %s", a)
		}
	}
	for range want {
		select {
		case a := <-got:
			if a.name != want[a.addr] {
				t.Errorf("%s is called %q, want %q", a.addr, a.name, want[a.addr])
			}
		case <-time.After(10 * time.Second):
			t.Fatal("an answer is missing")
		}
	}
	// No such name is an answer; rubbish and silence are failures.
	wantStats(t, n, NamesStats{Asked: 6, Failed: 2, Unfit: 1})
}

// servePTR answers questions for names with these, for "silent" with nothing
// and for others that there is no such name.
func servePTR(c net.PacketConn, names map[string]string) {
	b := make([]byte, 512)
	for {
		n, from, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var m dnsmessage.Message
		if err != nil || m.Unpack(b[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		reply := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true}, Questions: m.Questions}
		switch name := names[q.Name.String()]; name {
		case "silent":
			continue
		case "":
			reply.RCode = dnsmessage.RCodeNameError
		default:
			reply.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET, TTL: 60},
				Body:   &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(name)},
			}}
		}
		if packed, err := reply.Pack(); err == nil {
			c.WriteTo(packed, from)
		}
	}
}
