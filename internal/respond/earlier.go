package respond

import (
	"net/netip"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/judge"
)

// Plan is which of the owner's steps are configured.
func (r *Responder) Plan() Plan {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.plan
}

// Earlier is the ban that a line of the blocked file stands for where no native
// method keeps it: the steps that an earlier run did for this host, taken to
// have succeeded, for only then is a host listed. It reports false when the
// configuration has no such steps any more.
func (p *Plan) Earlier(host netip.Addr, since time.Time, port uint16, proto uint8, c *config.Config) (InForce, bool) {
	block, steps := c.BlockTCP, p.Ban
	if proto == decode.ProtoUDP {
		block = c.BlockUDP
	}
	if block == config.BlockCommand {
		steps = p.Command
	}
	if block == config.BlockNone || len(steps) == 0 {
		return InForce{}, false
	}
	row := InForce{Steps: steps, Ban: Ban{
		Prefix: netip.PrefixFrom(host, host.BitLen()), Strength: judge.Soft, Evidence: judge.E1,
		Since: since, Times: 1, Port: port, Proto: proto, Reason: "on the blocked file",
	}}
	if len(p.lasting(steps)) == 0 {
		row.Ban.Until = since.Add(c.BanTimeUnverified)
	}
	return row, true
}

// lasting are those of steps that only a person can undo.
func (p *Plan) lasting(steps []Step) []Step {
	var out []Step
	for _, s := range steps {
		if s == StepRoute && !p.RouteUndo || s == StepCommand && !p.CommandUndo {
			out = append(out, s)
		}
	}
	return out
}
