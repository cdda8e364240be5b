package app

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/view"
	"portsentry/internal/view/metrics"
)

// Metrics is for metrics.Source: what status counts, by the names and labels of
// Prometheus. docs/metrics.md is the contract.
func (d *daemon) Metrics(ctx context.Context) ([]metrics.Family, error) {
	done, err := d.ask()
	if err != nil {
		return nil, err
	}
	defer done()
	h := d.health(ctx)
	out := []metrics.Family{
		info("portsentry_build_info", "Version of this program.",
			"version", d.o.Build.Version, "commit", d.o.Build.Commit, "goversion", runtime.Version()),
		metrics.One("portsentry_start_time_seconds", "Time of the start, seconds since the epoch.", metrics.Gauge, float64(d.started.UnixMilli())/1000),
		metrics.One("portsentry_healthy", "Whether all is well (1) or not (0); portsentry health says what is not.", metrics.Gauge, truth(h.OK)),
		metrics.One("portsentry_problems", "Things that do not work at the moment.", metrics.Gauge, float64(len(h.Problems))),
		d.interfaceMetrics(),
		d.portMetrics(),
		banMetrics(d.responder.Tally()),
		metrics.One("portsentry_bans_enforced_ratio", "Share of the bans that the kernel enforces, 1 where there are none.", metrics.Gauge, ratio(h.Enforced, h.Bans)),
		d.decider.seen.family(),
	}
	out = append(out, counterMetrics(d.counters())...)
	if e := d.metrics.Load(); e != nil {
		out = append(out, metrics.One("portsentry_metrics_clients_refused_total", "Connections to the metrics for which there was no place.", metrics.Counter, float64(e.server.Refused())))
	}
	return append(out, metrics.Process(d.started)...), nil
}

func info(name, help string, pairs ...string) metrics.Family {
	s := metrics.Sample{Value: 1}
	for p := range slices.Chunk(pairs, 2) {
		s.Labels = append(s.Labels, metrics.Label{Name: p[0], Value: p[1]})
	}
	return metrics.Family{Name: name, Help: help, Samples: []metrics.Sample{s}}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func ratio(part, whole int) float64 {
	if whole == 0 {
		return 1
	}
	return float64(part) / float64(whole)
}

// interfaceMetrics counts interfaces by how they are watched: names come and go
// with every container.
func (d *daemon) interfaceMetrics() metrics.Family {
	f := metrics.Family{Name: "portsentry_interfaces", Help: "Interfaces that are watched, by how."}
	by := make(map[string]int)
	for _, w := range d.watched() {
		by[w.How]++
	}
	for _, how := range slices.Sorted(maps.Keys(by)) {
		f.Samples = append(f.Samples, metrics.Sample{Labels: []metrics.Label{{Name: "capture", Value: how}}, Value: float64(by[how])})
	}
	return f
}

func (d *daemon) portMetrics() metrics.Family {
	tcp, udp := d.trapPorts(d.conf.Load())
	return metrics.Family{Name: "portsentry_trap_ports", Help: "Ports that are traps.", Samples: []metrics.Sample{
		{Labels: []metrics.Label{{Name: "protocol", Value: "tcp"}}, Value: float64(tcp.Count())},
		{Labels: []metrics.Label{{Name: "protocol", Value: "udp"}}, Value: float64(udp.Count())},
	}}
}

// banMetrics has every strength with every evidence, nought as well: what is not
// there cannot be compared with what was.
func banMetrics(t respond.Tally) metrics.Family {
	f := metrics.Family{Name: "portsentry_bans", Help: "Bans in force, by how hard they are and what they are founded on."}
	for s := judge.Limited; s <= judge.Full; s++ {
		for e := judge.E0; e <= judge.E3; e++ {
			f.Samples = append(f.Samples, metrics.Sample{
				Labels: []metrics.Label{{Name: "strength", Value: s.String()}, {Name: "evidence", Value: e.String()}},
				Value:  float64(t[s][e]),
			})
		}
	}
	return f
}

// counterMetrics are the counters of status. Those that differ in one word are
// one metric with that word for a label.
func counterMetrics(all []view.Counter) []metrics.Family {
	var out []metrics.Family
	for i := range all {
		c := &all[i]
		if c.Name == "sightings_total" { // there by kind
			continue
		}
		if strength, ok := strings.CutPrefix(c.Name, "kernel_dropped_"); ok {
			s := metrics.Sample{Labels: []metrics.Label{{Name: "strength", Value: strings.TrimSuffix(strength, "_total")}}, Value: float64(c.Value)}
			const name = "portsentry_kernel_dropped_packets_total"
			if last := len(out) - 1; last >= 0 && out[last].Name == name {
				out[last].Samples = append(out[last].Samples, s)
			} else {
				out = append(out, metrics.Family{Name: name, Help: "Packets that the kernel dropped, by how hard the ban is.", Type: metrics.Counter, Samples: []metrics.Sample{s}})
			}
			continue
		}
		name := c.Name
		if name == "bans_total" { // which OpenMetrics would take for the counter of portsentry_bans
			name = "bans_made_total"
		}
		t := metrics.Gauge
		if strings.HasSuffix(c.Name, "_total") {
			t = metrics.Counter
		}
		out = append(out, metrics.One("portsentry_"+name, sentence(c.Help), t, float64(c.Value)))
	}
	return out
}

// sentence is help as others word it.
func sentence(help string) string { return strings.ToUpper(help[:1]) + help[1:] + "." }

// sightings counts what the decider has taken in, by kind and protocol, whether
// anybody asks or not.
type sightings [detect.KindWorm + 1][len(toldApart)]atomic.Uint64

// toldApart are the protocols with numbers of their own; the last stands for all others.
var toldApart = [...]uint8{decode.ProtoTCP, decode.ProtoUDP, decode.ProtoSCTP, decode.ProtoICMP, decode.ProtoICMPv6, 0}

func (n *sightings) add(s *detect.Sighting) {
	p := slices.Index(toldApart[:], s.Proto)
	if p < 0 {
		p = len(toldApart) - 1
	}
	n[s.Kind][p].Add(1)
}

// family has what any trap port may see from the beginning, nought as well, and
// the rest when it has been seen.
func (n *sightings) family() metrics.Family {
	f := metrics.Family{Name: "portsentry_sightings_total", Help: "Probes of trap ports and scans that were looked at, by kind.", Type: metrics.Counter}
	for k := detect.KindSYN; k <= detect.KindWorm; k++ {
		for i, proto := range toldApart {
			usual := false
			switch proto {
			case decode.ProtoTCP:
				usual = k < detect.KindUDP || k == detect.KindConnect
			case decode.ProtoUDP:
				usual = k == detect.KindUDP || k == detect.KindConnect
			}
			v := n[k][i].Load()
			if v == 0 && !usual {
				continue
			}
			word := "other"
			if proto != 0 {
				word = view.Proto(proto)
			}
			f.Samples = append(f.Samples, metrics.Sample{
				Labels: []metrics.Label{{Name: "kind", Value: k.String()}, {Name: "protocol", Value: word}}, Value: float64(v),
			})
		}
	}
	return f
}
