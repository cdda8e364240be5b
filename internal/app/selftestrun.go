package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/internal/view/cli"
)

const (
	seenTime = 3 * time.Second // for what is promised to be in the log
	banTime  = 3 * time.Second // for a ban to be in force, and for its end
	askAgain = 20 * time.Millisecond
)

// run sends the probes and looks what becomes of them. An error says that this
// could not be found out.
func (s *selfStage) run(ctx context.Context, d *selfDaemon, trials []*selfTrial, progress func(string)) error {
	if err := s.before(ctx, trials); err != nil {
		return err
	}
	progress("probing ...")
	for _, t := range trials {
		err := s.probe(ctx, t)
		if t.unsent = errors.Is(err, pktgen.ErrNotTaken); err != nil && !t.unsent {
			return fmt.Errorf("%s: %w", t.Probe, err)
		}
	}
	if err := s.slowly(ctx, trials, progress); err != nil {
		return err
	}
	_, err := until(ctx, seenTime, func() (bool, error) {
		return !slices.ContainsFunc(trials, func(t *selfTrial) bool { return !t.logged(d) }), d.ended()
	})
	if err != nil {
		return err
	}
	progress("looking who is banned ...")
	if err := s.banned(ctx, d, trials); err != nil {
		return err
	}
	progress("letting them in again ...")
	if err := s.release(ctx, d, trials); err != nil {
		return err
	}
	if err := pause(ctx, lateTime); err != nil { // for what is not to be in the log
		return err
	}
	for _, t := range trials {
		t.logged(d)
		t.weigh()
	}
	return s.explain(ctx, d, trials)
}

// before makes sure that everything answers as long as nobody has probed.
func (s *selfStage) before(ctx context.Context, trials []*selfTrial) error {
	for range 3 {
		var knocks []*knock
		for _, t := range trials {
			knocks = append(knocks, t.knocks(s)...)
		}
		err := s.wave(ctx, knocks)
		if err == nil && count(knocks) == len(knocks) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("the host does not answer before anybody has probed it: does a program of yours change new network namespaces?")
}

// knocks are those of t, each made anew.
func (t *selfTrial) knocks(s *selfStage) (out []*knock) {
	for _, k := range []*knock{t.mute, t.open} {
		if k != nil {
			k.packet.SrcPort = s.nextPort()
			out = append(out, k)
		}
	}
	return out
}

// probe sends the probe of t.
func (s *selfStage) probe(ctx context.Context, t *selfTrial) error {
	switch {
	case t.port == 0:
		return nil
	case t.probe.scan != nil:
		return s.sendScan(t)
	}
	for range t.times {
		switch {
		case t.probe.role == connector:
			// In most ways of watching nobody takes the connection, and once banned
			// nobody refuses it.
			if c, err := s.dial(ctx, t.Source, t.port); err == nil {
				c.Close()
			}
			continue
		case t.probe.udp:
			if err := s.offer(s.udp(t.Source, t.port)); err != nil {
				return err
			}
			continue
		}
		p := s.tcp(t.Source, t.port, t.probe.flags)
		if t.probe.shape != nil {
			t.probe.shape(&p)
		}
		if err := s.offer(p); err != nil {
			return err
		}
	}
	return nil
}

// logged takes over what the log says about t, and reports whether what is
// promised of it is there.
func (t *selfTrial) logged(d *selfDaemon) bool {
	events := slices.DeleteFunc(d.about(t.Source), func(e selfEvent) bool { return !t.concerns(&e) })
	if len(events) == 0 {
		return t.Promise.Seen != cli.Must
	}
	e := &events[0]
	for i := range events {
		if events[i].Kind == t.Promise.Named {
			e = &events[i]
			break
		}
	}
	t.Seen, t.Kind, t.Evidence = true, e.Kind, e.Evidence
	if t.Named, _, _ = strings.Cut(e.Type, ":"); t.probe.scan != nil { // of odd flags the list is left out
		t.Named = e.Kind + ", " + e.Direction
	}
	t.spared = e.Spared
	t.shown = t.probe.shows == nil || t.probe.shows(e)
	return t.Promise.Seen != cli.Must || e.Kind == t.Promise.Named
}

// banned looks who is kept out, and whether those who must not be are not. A ban
// is what the host does: the list of bans only says how.
func (s *selfStage) banned(ctx context.Context, d *selfDaemon, trials []*selfTrial) error {
	_, err := until(ctx, banTime, func() (bool, error) {
		bans, err := cli.Bans(ctx, d.socket)
		if err != nil {
			return false, err
		}
		whole := true
		for _, t := range trials {
			t.Methods = nil
			for i := range bans {
				if bans[i].Prefix.Contains(t.Source) {
					t.Methods = bans[i].Methods
				}
			}
			whole = whole && (t.Promise.Banned != cli.Must || !t.Seen || len(t.Methods) > 0)
		}
		if !whole {
			err = pause(ctx, askAgain)
		}
		return whole, err
	})
	if err != nil {
		return err
	}
	var knocks []*knock
	for _, t := range trials {
		knocks = append(knocks, t.knocks(s)...)
	}
	if err := s.wave(ctx, knocks); err != nil {
		return err
	}
	// The kernel's rules may have begun a ban that is taken back a moment later.
	knocks = nil
	for _, t := range trials {
		if t.Promise.Banned == cli.MustNot && !t.open.answered {
			knocks = append(knocks, t.knocks(s)...)
		}
	}
	if len(knocks) > 0 {
		if err := s.wave(ctx, knocks); err != nil {
			return err
		}
	}
	for _, t := range trials {
		switch {
		case t.Promise.Banned == cli.Must:
			t.Banned = !t.mute.answered
			t.tooMuch = t.open != nil && !t.open.answered
		case t.Promise.Banned == cli.MustNot:
			t.Banned = !t.open.answered || t.probe.role == client && !s.goesOn(t.Source)
		}
	}
	return nil
}

// release lifts the bans and looks who is let in again.
func (s *selfStage) release(ctx context.Context, d *selfDaemon, trials []*selfTrial) error {
	var out []*selfTrial
	for _, t := range trials {
		if t.Promise.Released != cli.Must || !t.Banned {
			continue
		}
		if _, err := cli.Unban(ctx, d.socket, t.Source); err != nil {
			return err
		}
		out = append(out, t)
	}
	for end := time.Now().Add(banTime); len(out) > 0 && time.Now().Before(end); {
		var knocks []*knock
		for _, t := range out {
			knocks = append(knocks, t.knocks(s)...)
		}
		if err := s.wave(ctx, knocks); err != nil {
			return err
		}
		out = slices.DeleteFunc(out, func(t *selfTrial) bool {
			t.Released = t.mute.answered && (t.open == nil || t.open.answered)
			return t.Released
		})
	}
	return nil
}

// weigh says what is not as promised.
func (t *selfTrial) weigh() {
	p := &t.Promise
	const defect = "please report it with this line"
	broken := func(sentence, hint string) { t.Broken, t.Hint = sentence, hint }
	switch {
	case t.unsent:
		broken("it could not be sent", "a program of yours filters what leaves new network namespaces")
	case p.Seen == cli.Must && !t.Seen:
		broken("it was not seen", "portsentry status says how packets are read, and why")
	case p.Seen == cli.MustNot && t.Seen:
		broken("it was taken for a probe, as "+t.Kind, defect)
	case p.Banned == cli.MustNot && t.Banned:
		broken("it was cut off, and must never be", defect)
	case p.Seen == cli.Must && t.Kind != p.Named:
		broken("it was named "+t.Kind+", not "+p.Named, defect)
	case p.Seen == cli.Must && !t.shown:
		broken("the log does not say that it was in fragments or had options", defect)
	case p.Seen == cli.Must && p.Banned == cli.Must && t.spared != "":
		broken("nobody of that address is ever banned ("+t.spared+")", "IGNORE_FILE spares every network there is to test with: make its prefixes longer")
	case p.Seen == cli.Must && t.Evidence != p.Evidence:
		broken("it counts as "+t.Evidence+", not "+p.Evidence, defect)
	case p.Banned == cli.Must && !t.Banned && len(t.Methods) > 0:
		broken("the ban is listed ("+strings.Join(t.Methods, ", ")+"), and "+t.Silent+" answer all the same", defect)
	case p.Banned == cli.Must && !t.Banned:
		broken("it was not banned", "BLOCK_METHOD names what this machine cannot do, or see below")
	case t.tooMuch:
		broken("it was cut off from served ports too", defect)
	case p.Released == cli.Must && !t.Released:
		broken("it was not let in again after portsentry unban", defect)
	}
}

// explain adds what the daemon itself says to what is not as promised.
func (s *selfStage) explain(ctx context.Context, d *selfDaemon, trials []*selfTrial) error {
	if !slices.ContainsFunc(trials, func(t *selfTrial) bool { return t.Broken != "" }) {
		return nil
	}
	st, err := cli.Status(ctx, d.socket)
	if err != nil {
		return err
	}
	for _, p := range st.Problems {
		s.c.notes = append(s.c.notes, "portsentry itself says: "+p)
	}
	return nil
}

// words say how the configuration watches and answers in the test.
func (s *selfStage) words(ctx context.Context, d *selfDaemon) (string, error) {
	st, err := cli.Status(ctx, d.socket)
	if err != nil {
		return "", err
	}
	how := make([]string, 0, len(st.Watching))
	for _, w := range st.Watching {
		how = append(how, w.How)
	}
	answer := "log only"
	if st.BlockTCP != 0 || st.BlockUDP != 0 {
		answer = fmt.Sprintf("BLOCK_TCP=%d, BLOCK_UDP=%d, enforced by %s", st.BlockTCP, st.BlockUDP, strings.Join(st.Methods, ", "))
	}
	return fmt.Sprintf("TCP %s, UDP %s, read by %s; %s", st.TCPMode, st.UDPMode, strings.Join(how, ", "), answer), nil
}
