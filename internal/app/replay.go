package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/view/cli"
)

// replayEngine is what judges captures.
type replayEngine interface {
	// packet takes the next packet, which was in f.
	packet(p *decode.Probe, f *capture.Frame)
	// scans is what was found, one for each source and kind. It ends the engine.
	scans() []*detect.Scan
	// losses says what there was no room for, in sentences.
	losses() []string
}

// replay is captures on their way through an engine.
type replay struct {
	decoder  decode.Decoder
	probe    decode.Probe
	engines  []replayEngine // those that come first have the first word
	local    *localNetworks
	ignores  func(netip.Addr) bool
	json     bool
	stdin    io.Reader
	stderr   io.Writer
	progress *progress

	packets     uint64
	first, last int64 // of the packet times, unix nanoseconds; 0: none yet
	span        int64 // nanoseconds covered by the files, one by one
	unreadable  int   // files
}

func (r *replay) say(format string, args ...any) {
	r.progress.clear()
	fmt.Fprintf(r.stderr, format+"\n", args...)
}

// run plays the files and writes what was found.
func (r *replay) run(ctx context.Context, paths []string, stdout io.Writer) error {
	start := time.Now()
	for _, path := range paths {
		if ctx.Err() != nil {
			break
		}
		r.file(ctx, path)
	}
	r.progress.clear()
	found := r.scans()
	groups, notices := r.together()
	took := time.Since(start)
	kept := slices.DeleteFunc(found, func(s *detect.Scan) bool {
		return r.ignores(s.Source)
	})
	err := cli.WriteReplay(stdout, &cli.Replay{
		Scans: kept, Groups: groups, Notices: notices, Packets: r.packets, Length: time.Duration(r.span), Inside: r.local.inside(), JSON: r.json,
	})
	r.epilogue(len(found)-len(kept), took)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return &exitError{code: 1, err: errors.New("stopped before the end; what had been read was judged")}
	case r.unreadable > 0:
		return &exitError{code: 1}
	}
	return nil
}

// epilogue says what the findings do not: who is missing in them, and why.
func (r *replay) epilogue(ignored int, took time.Duration) {
	if ignored > 0 {
		r.say("%d %s of ignored sources left out (IGNORE_FILE)", ignored, plural(ignored, "scan", "scans"))
	}
	for _, e := range r.engines {
		for _, said := range e.losses() {
			r.say("%s", said)
		}
	}
	if n := r.decoder.Stats().Evicted; n > 0 {
		r.say("%s in fragments found no room among those that were put together", quantity(n, "packet"))
	}
	if r.packets > 0 {
		r.say("%s", r.local.words())
		r.say("%s", speed(r.packets, took))
	}
}

// file plays one file. Whatever is wrong with it is said, and the next one comes.
func (r *replay) file(ctx context.Context, path string) {
	fail := func(err error) {
		r.unreadable++
		r.say("%v", err)
	}
	file, err := openCapture(path, r.stdin)
	if err != nil {
		fail(err)
		return
	}
	defer file.Close()
	before := r.packets
	r.first, r.last = 0, 0
	err = file.Run(ctx, r.frame)
	r.span += r.last - r.first
	switch {
	case err != nil && ctx.Err() == nil:
		fail(captureError(path, err))
	case file.Cut():
		r.say("%s ends in the middle of a packet; the %s before it %s judged", captureName(path),
			quantity(r.packets-before, "packet"), plural(int(min(r.packets-before, 2)), "was", "were"))
	}
	if n := file.Stats().Other; n > 0 {
		r.say("%s: %s of a link type that portsentry cannot read", captureName(path), quantity(n, "packet"))
	}
}

// frame is the capture.Handler.
func (r *replay) frame(f *capture.Frame) {
	if r.packets++; r.packets%progressEvery == 0 {
		r.progress.at(r.packets)
	}
	switch {
	case f.Time == 0: // the format has none for it: that of the packet before
		f.Time = r.last
	case r.first == 0 || f.Time < r.first:
		r.first = f.Time
	}
	r.last = max(r.last, f.Time)
	if r.decoder.Decode(f, &r.probe) != decode.Complete {
		return
	}
	for _, e := range r.engines {
		e.packet(&r.probe, f)
	}
	if r.local.looking {
		r.local.look(&r.probe)
	}
}

// scans is what the engines have found, once for each source and kind.
func (r *replay) scans() (all []*detect.Scan) {
	type key struct {
		source netip.Addr
		kind   detect.Kind
	}
	known := make(map[key]bool)
	for _, e := range r.engines {
		for _, s := range e.scans() {
			if k := (key{s.Source, s.Kind}); !known[k] {
				known[k] = true
				all = append(all, s)
			}
		}
	}
	return all
}

// speed says how fast it went.
func speed(packets uint64, took time.Duration) string {
	return fmt.Sprintf("%s in %.2f s, %s packets/s", quantity(packets, "packet"), took.Seconds(),
		cli.Grouped(uint64(float64(packets)/max(took.Seconds(), 1e-6))))
}

// quantity is a number of things: 1 packet, 61,204 packets.
func quantity(n uint64, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return cli.Grouped(n) + " " + thing
}

// together is what many sources did together: the full detection knows.
func (r *replay) together() (groups []cli.ReplayGroup, notices []cli.ReplayNotice) {
	for _, e := range r.engines {
		if f, ok := e.(*replayFull); ok {
			return f.together()
		}
	}
	return nil, nil
}
