package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/respond"
	"portsentry/internal/respond/dryrun"
	"portsentry/internal/respond/ipset"
	"portsentry/internal/respond/nft"
	"portsentry/internal/respond/route"
)

// otherMethods are the native methods beside nftables, those that have been
// opened.
type otherMethods struct {
	routes *route.Routes
	sets   *ipset.Sets
	dry    *dryrun.Method
}

// wants reports whether c bans natively by m, or a person does where c bans nobody.
// "auto" is XDP and nftables, and where there is no XDP, nftables takes its place.
func (d *daemon) wants(c *config.Config, m config.Method) bool {
	if !blocks(c) && !d.byHand.Load() {
		return false
	}
	named := func(m config.Method) bool { return slices.Contains(c.BlockMethods, m) }
	if m == config.MethodNftables {
		return named(m) || named(config.MethodAuto) || named(config.MethodXDP) && d.sensor.Load() == nil
	}
	return named(m)
}

// tableBans reports whether the firewall table keeps out whom c bans: with "auto"
// there may be none.
func (d *daemon) tableBans(c *config.Config) bool {
	return d.table.Load() != nil && d.wants(c, config.MethodNftables)
}

// provisional is how long a ban of the kernel's own lasts that nobody confirms.
// It never outlives the ban that it begins.
const provisional = 10 * time.Second

// openMethods opens what c bans with, and what an earlier run has left.
func (d *daemon) openMethods(c *config.Config) error {
	if d.table.Load() == nil {
		if err := d.setTable(context.Background(), c); err != nil {
			return err
		}
	}
	d.onStop(d.closeTable) // a start that fails later leaves no trap rule behind
	return d.openOthers(c)
}

// setTable makes the firewall table what c says. Where c does not ban with it,
// it stays without traps as long as bans of before may be in force, so that they
// can be seen and lifted until they end. With BLOCK_METHOD="auto" a kernel
// without nftables is a problem to be shown, not a reason to watch nothing.
func (d *daemon) setTable(ctx context.Context, c *config.Config) error {
	o := d.tableOptions(c)
	t := d.table.Load()
	if t != nil {
		return t.Reconfigure(ctx, o)
	}
	if !d.wants(c, config.MethodNftables) && !nft.Present() {
		return nil
	}
	t, err := nft.Open(o)
	if err != nil {
		if !slices.Contains(c.BlockMethods, config.MethodNftables) {
			d.noTable = err
			d.sayTable(c)
			return nil
		}
		return fmt.Errorf("BLOCK_METHOD: %w", err)
	}
	d.noTable = nil
	d.sayTable(c)
	d.table.Store(t)
	if d.capturing != nil {
		d.hearTable(t)
	}
	return nil
}

// sayTable says what becomes of bans where there should be a firewall table and
// is none.
func (d *daemon) sayTable(c *config.Config) {
	said := ""
	switch {
	case d.noTable == nil:
	case d.dropping(c):
		said = fmt.Sprintf("the XDP program bans alone, and guests behind this host are kept from none but those with proof against them: %v", d.noTable)
	default:
		said = fmt.Sprintf("no native ban: %v", d.noTable)
	}
	d.problems.set("nftables", said)
}

func (d *daemon) tableOptions(c *config.Config) nft.Options {
	s := d.facts.watcher.Snapshot()
	w := portsOf(c)
	o := nft.Options{
		TrapsTCP: w.packets.tcp, TrapsUDP: w.packets.udp,
		EphemeralFirst: s.EphemeralFirst, EphemeralLast: s.EphemeralLast,
		BlockTCP: c.BlockTCP, BlockUDP: c.BlockUDP,
		KernelTraps: c.ScanTrigger <= 1,
		Provisional: min(provisional, c.BanTimeUnverified),
		LimitedOnly: c.BlockEvidence == config.EvidenceVerified,
		TrapServed:  d.o.TrapServed,
		OwnTraps:    accepts(c.Modes),
		Standby:     d.standby.on.Load(),
		Untracked:   d.untracked(c),
		Spare:       d.facts.latest.Load().Prefixes(),
		Peers:       d.peers.List(),
	}
	if !d.wants(c, config.MethodNftables) {
		o.BlockTCP, o.BlockUDP = config.BlockNone, config.BlockNone
	}
	return o
}

// openOthers opens the other methods of c that are not open yet. Routes have no
// end but us: those of an earlier run are looked for whatever c says.
func (d *daemon) openOthers(c *config.Config) (err error) {
	o := &d.others
	if o.routes == nil {
		o.routes, err = route.Open()
		switch {
		case err == nil:
			d.onStop(o.routes.Close)
		case d.wants(c, config.MethodRoute):
			return fmt.Errorf("BLOCK_METHOD: %w", err)
		}
	}
	if d.wants(c, config.MethodIPSet) && o.sets == nil {
		if o.sets, err = ipset.Open(); err != nil {
			return fmt.Errorf("BLOCK_METHOD: %w", err)
		}
		d.onStop(o.sets.Close)
	}
	if d.wants(c, config.MethodDryRun) && o.dry == nil {
		o.dry = dryrun.New()
	}
	return nil
}

// outliving are the methods that may hold bans of an earlier run.
func (d *daemon) outliving() []existing {
	var out []existing
	if s := d.sensor.Load(); s != nil {
		out = append(out, s.method)
	}
	if t := d.table.Load(); t != nil {
		out = append(out, t)
	}
	if d.others.sets != nil {
		out = append(out, d.others.sets)
	}
	if d.others.routes != nil {
		out = append(out, d.others.routes)
	}
	return out
}

// sayRules says which rules the owner's firewall lacks.
func (d *daemon) sayRules(c *config.Config) {
	said := ""
	if d.wants(c, config.MethodIPSet) {
		v4, v6, err := d.others.sets.Referenced()
		rules := d.others.sets.Rules()
		switch {
		case err != nil:
			said = fmt.Sprintf("whether the firewall uses our sets is not known: %v", err)
		case !v4 && !v6:
			said = "no rule uses the sets yet, so nobody is banned by them; add: " + strings.Join(rules, "; ")
		case !v4:
			said = "no rule uses the set for IPv4 yet; add: " + rules[0]
		case !v6:
			said = "no rule uses the set for IPv6 yet; add: " + rules[1]
		}
	}
	d.problems.set("ipset", said)
}

// methods are those that new bans are made with, the best first.
func (d *daemon) methods(c *config.Config) []respond.Method {
	var out []respond.Method
	if s := d.sensor.Load(); s != nil && drops(c) {
		out = append(out, s.method)
	}
	if d.tableBans(c) {
		out = append(out, d.table.Load())
	}
	if d.wants(c, config.MethodIPSet) {
		out = append(out, d.others.sets)
	}
	if d.wants(c, config.MethodRoute) {
		out = append(out, d.others.routes)
	}
	if d.wants(c, config.MethodDryRun) {
		out = append(out, d.others.dry)
	}
	return out
}

// revoke takes a provisional ban of the kernel's own back.
func (d *daemon) revoke(ctx context.Context, a netip.Addr) {
	d.sayRevoked(d.takeBack(ctx, a))
}

func (d *daemon) sayRevoked(err error) {
	said := ""
	if err != nil {
		said = fmt.Sprintf("a provisional ban could not be taken back (it ends within 10 s): %v", err)
	}
	d.problems.set("revoke", said)
}

func (d *daemon) takeBack(ctx context.Context, a netip.Addr) error {
	var err error
	if s := d.sensor.Load(); s != nil {
		err = s.method.Revoke(ctx, a)
	}
	if t := d.table.Load(); t != nil {
		err = errors.Join(err, t.Revoke(ctx, a))
	}
	return err
}

// hearTable hears what the table has to say, as long as packets come in.
func (d *daemon) hearTable(t *nft.Table) {
	d.capturing.start("kernel reports", func(ctx context.Context) error { return d.kernelReports(ctx, t) })
	d.capturing.start("firewall table", func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-t.Lost():
				d.remakeTable(ctx, t)
			}
		}
	})
}

// remakeTable makes the table again with all bans, when somebody took it away.
func (d *daemon) remakeTable(ctx context.Context, t *nft.Table) {
	n, err := d.responder.Remake(ctx, t.Name(), func(bans []respond.Ban) error { return t.Rebuild(ctx, bans) })
	if err != nil {
		d.problems.set("table", fmt.Sprintf("somebody removed our firewall table (nft flush ruleset?), and it could not be made again: %v", err))
		return
	}
	d.problems.set("table", "")
	d.problems.set(tableGone, "")
	d.log.Notice(fmt.Sprintf("adminalert: somebody removed our firewall table (nft flush ruleset?); it was made again, with %d %s", n, plural(n, "ban", "bans")))
}

// closeTable leaves the bans and takes the trap rule away.
func (d *daemon) closeTable() error {
	t := d.table.Load()
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := t.Close(ctx); err != nil {
		return fmt.Errorf("the firewall's trap rule may still be there: %w", err)
	}
	d.standby.on.Store(false)
	return nil
}
