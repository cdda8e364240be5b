package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// lane is a world of its own whose traffic is compared with another's.
type lane struct {
	*world
	name string
}

const (
	laneOff   = "off"   // no daemon
	laneAgain = "again" // no daemon either: the others are compared with both, and it with the first
	laneEmpty = "empty" // no daemon, but an XDP program that does nothing
)

// load is a kind of traffic to the host. A connection has two ends that run
// until it is closed, and count what came about.
type load struct {
	what, unit  string
	per         float64 // counts per unit
	connections int
	ask, serve  func(c net.Conn, n *atomic.Int64)
}

func loads() []load {
	return []load{
		{"one TCP stream", "Gbit/s", 1e9 / 8, 1, write, drain},
		{"1-byte requests, 16 connections", "thousand/s", 1e3, 16, ask, echo},
	}
}

const streamBuffer = 128 << 10

func write(c net.Conn, _ *atomic.Int64) {
	buf := make([]byte, streamBuffer)
	for {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

func drain(c net.Conn, n *atomic.Int64) {
	buf := make([]byte, streamBuffer)
	for {
		k, err := c.Read(buf)
		if err != nil {
			return
		}
		n.Add(int64(k))
	}
}

func ask(c net.Conn, n *atomic.Int64) {
	var b [1]byte
	for {
		if _, err := c.Write(b[:]); err != nil {
			return
		}
		if _, err := c.Read(b[:]); err != nil {
			return
		}
		n.Add(1)
	}
}

func echo(c net.Conn, _ *atomic.Int64) {
	var b [1]byte
	for {
		if _, err := c.Read(b[:]); err != nil {
			return
		}
		if _, err := c.Write(b[:]); err != nil {
			return
		}
	}
}

// Of one slice of traffic.
const (
	sliceWarm = 20 * time.Millisecond // connections find their pace
	sliceLast = 80 * time.Millisecond
)

// slice puts a load on the host for a moment and gives units a second.
func (w *world) slice(ctx context.Context, l load) (float64, error) {
	var n atomic.Int64
	var ends sync.WaitGroup
	open, err := w.connect(l.connections)
	defer func() {
		for _, c := range open {
			c.SetLinger(0) // nothing of it reaches into the next slice
			c.Close()
		}
		ends.Wait()
	}()
	if err != nil {
		return 0, err
	}
	for i := 0; i < len(open); i += 2 {
		ends.Go(func() { l.ask(open[i], &n) })
		ends.Go(func() { l.serve(open[i+1], &n) })
	}
	if err := pause(ctx, sliceWarm); err != nil {
		return 0, err
	}
	before, start := n.Load(), time.Now()
	if err := pause(ctx, sliceLast); err != nil {
		return 0, err
	}
	rate := float64(n.Load()-before) / time.Since(start).Seconds() / l.per
	if rate == 0 {
		return 0, errors.New("nothing got through")
	}
	return rate, nil
}

const connectTimeout = 5 * time.Second

// connect opens n connections to the served port. It gives both ends of each,
// first the scanner's, also when it fails.
func (w *world) connect(n int) (open []*net.TCPConn, err error) {
	addr := netip.AddrPortFrom(w.host.Addr4(), servedPort)
	var l *net.TCPListener
	err = w.host.NS.Do(func() (err error) {
		l, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	if err := l.SetDeadline(time.Now().Add(connectTimeout)); err != nil {
		return nil, err
	}
	for range n {
		err := w.scanner.NS.Do(func() error {
			c, err := net.DialTimeout("tcp4", addr.String(), connectTimeout)
			if err == nil {
				open = append(open, c.(*net.TCPConn))
			}
			return err
		})
		if err != nil {
			return open, err
		}
		c, err := l.AcceptTCP()
		if err != nil {
			return open, err
		}
		open = append(open, c)
	}
	return open, nil
}

// traffic measures what ordinary traffic loses to a daemon that watches and bans.
func (b *bench) traffic(ctx context.Context) error {
	const rounds = 100
	for _, c := range []struct {
		what   string
		join   cable
		rounds int
		target bool
	}{
		{"", card, rounds, true},
		{", plain veth", plain, rounds / 3, false},
	} {
		err := b.compare(ctx, c.join, max(b.count(c.rounds), 2), func(l load, name string, rates, ratios []float64) {
			what := l.what + c.what
			switch {
			case name == laneOff:
				b.note(name, what, "%.2f %s", middle(rates), l.unit)
			case c.target && name != laneAgain && name != laneEmpty:
				b.row(name, what+": share of off", "at least 97 %", midmean(ratios) >= 0.97, "%s", spread(ratios))
			default:
				b.note(name, what+": share of off", "%s", spread(ratios))
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// compare gives for each load and lane the rates, and the ratios of each to the
// rate of the lanes without a daemon in the same round. The lanes take turns many
// times, so that whatever else the machine does falls on all of them.
func (b *bench) compare(ctx context.Context, join cable, rounds int, report func(l load, name string, rates, ratios []float64)) (err error) {
	lanes, err := b.lanes(ctx, join)
	defer func() {
		for _, l := range lanes {
			err = errors.Join(err, l.close())
		}
	}()
	if err != nil {
		return err
	}
	for _, load := range loads() {
		rates := make(map[string][]float64)
		order := rand.New(rand.NewPCG(1, 2)) // the same one each time
		for range rounds {
			for _, i := range order.Perm(len(lanes)) { // nobody always follows the same one
				l := lanes[i]
				rate, err := l.slice(ctx, load)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", l.name, load.what, err)
				}
				rates[l.name] = append(rates[l.name], rate)
			}
		}
		for _, l := range lanes {
			ratios := make([]float64, rounds)
			for i := range ratios {
				without := rates[laneOff][i]
				if l.name != laneOff && l.name != laneAgain {
					without = (without + rates[laneAgain][i]) / 2
				}
				ratios[i] = rates[l.name][i] / without
			}
			report(load, l.name, rates[l.name], ratios)
		}
	}
	return nil
}

// lanes makes the worlds to compare; what it gives is to be closed, also when it
// fails.
func (b *bench) lanes(ctx context.Context, join cable) ([]lane, error) {
	var lanes []lane
	add := func(name string) (*world, error) {
		w, err := newWorld(join)
		if err == nil {
			lanes = append(lanes, lane{w, name})
		}
		return w, err
	}
	for _, name := range []string{laneOff, laneAgain, laneEmpty} {
		w, err := add(name)
		if err == nil && name == laneEmpty {
			err = w.passAll()
		}
		if err != nil {
			return lanes, err
		}
	}
	ways := b.ways
	if i := slices.IndexFunc(ways, func(w way) bool { return w.name == "afpacket" }); i >= 0 {
		both := ways[i] // the ring reads, the XDP program bans
		both.name, both.blockMethod = "both", "auto"
		ways = append(slices.Clone(ways), both)
	}
	for _, by := range ways {
		w, err := add(by.name)
		if err == nil {
			_, err = b.start(ctx, w, by.banning())
		}
		if err != nil {
			return lanes, err
		}
	}
	return lanes, nil
}

// spread writes the midmean of ratios and where the middle half of them lies.
func spread(ratios []float64) string {
	sorted := slices.Sorted(slices.Values(ratios))
	n := len(sorted)
	return fmt.Sprintf("%.1f %% (half of %d rounds within %.1f to %.1f)",
		100*midmean(sorted), n, 100*sorted[n/4], 100*sorted[n-1-n/4])
}

// midmean is the mean of the middle half: as hardened against odd rounds as the median,
// and less scattered.
func midmean(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	half := sorted[n/4 : n-n/4]
	sum := 0.0
	for _, v := range half {
		sum += v
	}
	return sum / float64(len(half))
}
