package app

import (
	"context"
	"errors"
	"fmt"

	"portsentry/internal/bpf"
	"portsentry/internal/capture/listen"
	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/respond/nft"
	"portsentry/internal/view"
)

// errStopping answers those who ask when it is too late.
var errStopping = errors.New("portsentry is stopping")

// ask lets the caller look at everything until it calls done: nothing is closed
// meanwhile.
func (d *daemon) ask() (done func(), err error) {
	d.asking.RLock()
	if d.closing {
		d.asking.RUnlock()
		return nil, errStopping
	}
	return d.asking.RUnlock, nil
}

// endAsking waits for those who look, and lets nobody look any more.
func (d *daemon) endAsking() {
	d.asking.Lock()
	defer d.asking.Unlock()
	d.closing = true
}

// Status is for control.State.
func (d *daemon) Status(context.Context) (view.Status, error) {
	done, err := d.ask()
	if err != nil {
		return view.Status{}, err
	}
	defer done()
	c := d.conf.Load()
	tcp, udp := d.trapPorts(c)
	s := view.Status{
		Version: d.o.Build.Version, Started: d.started, Config: c.Path,
		Watching: d.watched(),
		TCPMode:  c.Modes.TCP.Word(config.Dialect2x, false), UDPMode: c.Modes.UDP.Word(config.Dialect2x, true),
		TCPPorts: tcp.Count(), UDPPorts: udp.Count(),
		BlockTCP: int(c.BlockTCP), BlockUDP: int(c.BlockUDP),
		Methods:  []string{},
		Counters: d.counters(), // may find a problem
		Bans:     d.responder.Count(),
	}
	if bans, enforced, checked := d.enforced(); !checked.IsZero() {
		s.CheckedBans, s.Enforced, s.Checked = bans, enforced, &checked
	}
	d.lookAtLog()
	s.Problems, s.Lacks = d.problems.list(), d.lacks
	if findsScans(c) {
		s.Horizon = horizon().Seconds()
	}
	if s.Config == "" {
		s.Config = "built-in defaults"
	}
	for _, m := range d.methods(c) {
		s.Methods = append(s.Methods, m.Name())
	}
	s.StandBy = d.standsBy()
	return s, nil
}

// counters gathers every stage's numbers in the order of the packet's way.
func (d *daemon) counters() []view.Counter {
	var out []view.Counter
	count := func(name, help string, v uint64) {
		out = append(out, view.Counter{Name: name, Help: help, Value: v})
	}
	loss := func(name, help string, v uint64) {
		out = append(out, view.Counter{Name: name, Help: help, Value: v, Loss: true})
	}
	var frames, ringLost, other uint64
	var det detect.Stats
	var undecoded, queueLost, fragLost, scans, unnoted uint64
	pipes := func(all []*pipeline) {
		for _, p := range all {
			det.Add(p.detector.Stats())
			undecoded += p.undecoded.Load()
			queueLost += p.lost.Load()
			fragLost += p.decoder.Stats().Evicted
			scans += p.found.Load()
			unnoted += p.unnoted.Load()
		}
	}
	if path := d.packets.Load(); path != nil {
		for _, w := range path.ring.Workers() {
			s := w.Stats()
			frames += s.Frames
			ringLost += s.Dropped
			other += s.Other
		}
		pipes(path.pipelines)
	}
	kernel, shown := d.tally()
	var peers bpf.PeerStats
	if x := d.sensor.Load(); x != nil {
		for _, w := range x.source.Workers() {
			s := w.Stats()
			frames += s.Events + s.Frames
		}
		pipes(x.pipelines)
		peers = x.peers.Stats()
	}
	if d.sensing(d.conf.Load()) { // else AF_PACKET sees and counts them, too
		det.Served += kernel.Served
		det.Replies += kernel.Replies
		det.Noise += kernel.Noise
		det.BadChecksum += kernel.Bad
		det.NotOurs += kernel.NotOurs
	}
	if s := d.sockets.Load(); s != nil {
		det.Add(s.contacts.detector.Stats())
		queueLost += s.contacts.lost.Load()
	}
	count("frames_total", "frames that passed the capture filter", frames)
	loss("ring_lost_total", "frames lost because the capture ring was full", ringLost)
	loss("probes_counted_total", "probes that the kernel counted, by source, and did not itemise because the ring was full", kernel.Counted-min(shown, kernel.Counted))
	loss("untold_total", "packets that the kernel left to be judged here, lost because the ring was full", kernel.Untold)
	loss("peers_lost_total", "connected addresses for which the XDP program's list had no room, or of which we were not told", peers.Full+peers.Untold)
	count("frames_unwatched_total", "frames from interfaces no longer watched", other)
	count("undecoded_total", "frames that are no packet we understand", undecoded)
	loss("fragments_lost_total", "datagrams in fragments given up for lack of room", fragLost)
	count("sightings_total", "probes of trap ports", det.Sightings)
	count("served_total", "packets to trap ports where something listens or is connected", det.Served)
	count("replies_total", "packets that answer something of ours, or are translated to somebody else", det.Replies)
	count("noise_total", "late packets and backscatter to trap ports", det.Noise)
	count("bad_checksum_total", "packets no host would take", det.BadChecksum)
	count("not_ours_total", "packets to addresses that are not ours", det.NotOurs)
	loss("unsure_total", "packets about which the kernel could not be asked in time", det.Unsure)
	if d.full.Load() != nil {
		count("contacts_total", "first packets to what nobody serves here", det.Contacts)
		loss("contacts_unsure_total", "of them, those about which the kernel could not be asked in time", det.ContactUnsure)
		loss("contacts_lost_total", "of them, those that the kernel could not even count by source", kernel.ClosedLost)
		count("scans_told_total", "scans found, counted again each time they have doubled", scans)
		loss("successes_lost_total", "connections to services that were not taken into account for lack of room", unnoted)
	}
	count("sources_evicted_total", "sources forgotten to make room", det.Evicted)
	loss("queue_lost_total", "sightings lost because the queue was full", queueLost)
	loss("facts_failed_total", "times that interfaces and addresses could not be read", d.facts.watcher.Failures())

	count("martians_total", "probes from addresses that no host sends from", d.decider.martians.Load())
	count("spared_total", "probes from sources that are never acted on", d.decider.spared.Load())
	count("dropped_by_ban_total", "probes of trap ports that ran into our own ban", d.decider.dropped.Load())

	r := d.responder.Stats()
	count("bans_total", "bans made", r.Bans)
	count("bans_put_back_total", "bans that somebody took out of the kernel and that were put back", d.watchdog.remade.Load())
	loss("bans_not_put_back_total", "of such bans, times that they could not be", d.watchdog.failed.Load())
	loss("bans_refused_total", "bans not made: too many, or too many a second", r.RefusedLimits)
	loss("bans_failed_total", "bans that a native method refused", r.NativeFailed)
	if c := d.record.cut; c != nil {
		count("connections_cut_total", "connections of fully banned sources taken out of connection tracking", c.cut.Load())
		loss("connections_uncut_total", "full bans whose connections were not: too many at once", c.lost.Load())
	}
	loss("commands_refused_total", "commands not run because the queue was full", r.RefusedBusy)
	loss("commands_failed_total", "commands that failed", r.StepsFailed)
	if d.table.Load() != nil || d.sensor.Load() != nil {
		d.kernelCounters(&kernel, count, loss)
	}
	d.sayRules(d.conf.Load())
	if s := d.sockets.Load(); s != nil {
		trapCounters(s.traps.Stats(), count, loss)
	}
	if n := d.names.Stats(); n.Asked > 0 {
		count("names_asked_total", "questions for host names (RESOLVE_HOST)", n.Asked)
		count("names_failed_total", "of them, without an answer in time", n.Failed)
		count("names_refused_total", "names not asked for: too many at once", n.Refused)
	}
	if n := d.allowed.names.Stats(); n.Asked > 0 {
		count("allow_asked_total", "questions for the addresses of names in the ignore file", n.Asked)
		count("allow_failed_total", "of them, without an answer", n.Failed)
		count("allow_waits_total", "sightings that waited for the answers before anybody was banned", d.decider.doubted.Load())
		loss("allow_left_out_total", "addresses of such names that are not spared: too many of one name, or of no host", n.LeftOut)
	}
	d.journalCounters(count, loss)
	followers, missed := d.feed.stats()
	count("followers", "who follow what happens now (portsentry events -f)", uint64(followers))
	count("followers_missed_total", "events for which they were too slow, as they were told", missed)
	l := d.log.Stats()
	loss("log_lines_lost_total", "log lines that could not be written", l.Lost)
	if lost, kept := d.record.historyLost(); kept {
		loss("history_lines_lost_total", "history lines that could not be written", lost)
	}
	return out
}

// tally reads the counters of the XDP program. shown is how many sightings stand
// for probes that it only counted.
func (d *daemon) tally() (t bpf.Tally, shown uint64) {
	s := d.sensor.Load()
	if s == nil {
		return t, 0
	}
	for _, p := range s.pipelines {
		shown += p.shown.Load()
	}
	t, err := s.Tally()
	said := ""
	if err != nil {
		said = fmt.Sprintf("the XDP program cannot be asked what it counted: %v", err)
	}
	d.problems.set("tally", said)
	return t, shown
}

// tableGone is the key of what status finds out about our table by itself.
const tableGone = "table gone"

// kernelCounters adds what the firewall table and the XDP program count.
func (d *daemon) kernelCounters(x *bpf.Tally, count, loss func(string, string, uint64)) {
	var k nft.Stats
	if t := d.table.Load(); t != nil {
		var err error
		k, err = t.Stats()
		switch {
		case !nft.Present():
			without := "bans are not enforced"
			if d.dropping(d.conf.Load()) {
				without = "the XDP program alone keeps out who is banned"
			}
			d.problems.quiet(tableGone, true, fmt.Sprintf("somebody removed our firewall table (nft flush ruleset?): %s until it has been made again", without))
		case err != nil:
			d.problems.set(tableGone, fmt.Sprintf("the firewall table cannot be read: %v", err))
		default: // one of that name is there: whether it is ours is remakeTable's to say
			d.problems.set(tableGone, "")
		}
	}
	count("kernel_trap_hits_total", "packets to traps that the kernel dropped by itself", k.TrapHits+x.Hits)
	loss("kernel_overflow_total", "trap hits that found no room for a provisional ban (dropped, and left to the daemon to ban)", k.Overflow+x.HitsFull)
	loss("kernel_unremembered_total", "packets sent that found no room to be remembered (late answers to them may count as probes)", k.Unremembered)
	count("kernel_dropped_soft_total", "packets dropped by soft bans", k.DroppedSoft+x.DroppedSoft)
	count("kernel_dropped_limited_total", "packets dropped by limited bans", k.DroppedLimited+x.DroppedLimited)
	count("kernel_dropped_full_total", "packets dropped by full bans", k.DroppedFull+x.DroppedFull)
	if d.conf.Load().VerifySource {
		count("challenges_total", "SYN-ACKs sent to see who is there (VERIFY_SOURCE)", x.Challenged)
		count("challenges_withheld_total", "of them, not sent: too many", x.Unchallenged)
		count("verified_total", "handshakes completed", x.Verified)
		count("bad_acks_total", "ACKs to traps that answered no challenge", x.BadAcks)
		count("living_total", "sources that answered a challenge with a reset: the address is in use", x.Living)
		count("resets_total", "resets sent to those who went on", x.Resets)
	}
	loss("kernel_reports_lost_total", "the kernel's reports of trap hits that got lost", k.Lost+d.decider.hitsLost.Load())
	count("provisional_confirmed_total", "provisional bans confirmed", d.decider.confirmed.Load())
	count("provisional_revoked_total", "provisional bans taken back", d.decider.revoked.Load())
}

// trapCounters adds what the trap sockets count.
func trapCounters(s listen.Stats, count, loss func(string, string, uint64)) {
	count("trap_contacts_total", "connections and datagrams that trap sockets took", s.Contacts)
	loss("trap_contacts_lost_total", "connections and datagrams for trap sockets that the kernel had no room for", s.Lost)
	count("banners_total", "banners sent", s.Banners)
	count("banners_withheld_total", "UDP banners not sent: too many, or they could start a loop", s.Withheld)
	count("banners_cut_total", "banners cut short: the peer was too slow", s.Cut)
	loss("banners_failed_total", "banners that could not be sent", s.Failed)
	loss("held_refused_total", "connections closed without a banner: too many at once", s.Refused)
	loss("descriptors_missing_total", "times that there was no descriptor left for a connection", s.Starved)
	loss("traps_blind_total", "times that it could not be seen which services have ended", s.Blind)
}
