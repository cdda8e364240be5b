package judge

import "time"

// Growth is how the length of a ban comes about: Base, times Factor for each earlier
// ban that counts, up to Most.
type Growth struct {
	Base, Most time.Duration
	Factor     int
	Earlier    int
}

// mostUnverified is how long a ban may grow on evidence that anybody can forge, however
// long BAN_TIME is: who forges it again has it begin again, and who does not is not to
// go on locking somebody out.
const mostUnverified = time.Hour

// Growth is that of the nth ban of a prefix on such evidence (respond.Ban.Times). A
// person's ban is as long as he says.
func (p *Policy) Growth(e Evidence, n int) Growth {
	g := Growth{Base: p.BanUnverified, Most: max(p.BanUnverified, min(p.BanVerified, mostUnverified)), Factor: p.BanFactor, Earlier: max(n, 1) - 1}
	if e >= E2 {
		g.Base, g.Most = p.BanVerified, p.BanMost
	}
	return g
}

// Length is what it comes to: Base at least.
func (g Growth) Length() time.Duration {
	d := g.Base
	for range g.Earlier {
		if g.Factor < 2 || d <= 0 || d >= g.Most {
			break
		}
		if d > g.Most/time.Duration(g.Factor) { // which also keeps it from overflowing
			d = g.Most
			break
		}
		d *= time.Duration(g.Factor)
	}
	return max(g.Base, min(d, g.Most))
}
