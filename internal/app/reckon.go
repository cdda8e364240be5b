package app

import (
	"fmt"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/detect/full"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// reckon says how the length of b came about: what the settings come to, if that is it.
func reckon(p *judge.Policy, b *respond.Ban) string {
	base, most := "BAN_TIME", "BAN_TIME_MAX"
	if unverified(b) {
		base, most = "BAN_TIME_UNVERIFIED", "BAN_TIME"
	}
	length := b.Until.Sub(b.Since).Round(time.Second)
	for n := max(1, b.Times); n > 0; n-- { // earlier ones without proof may not count
		g := p.Growth(b.Evidence, n)
		if g.Length() != length {
			continue
		}
		said := base + " " + config.ShowTime(g.Base)
		if g.Earlier == 0 {
			return said
		}
		said += fmt.Sprintf(" x BAN_TIME_FACTOR %d, %s", g.Factor, often(g.Earlier))
		if length == g.Most {
			if g.Most != p.BanVerified && unverified(b) {
				most = "without proof"
			}
			said += fmt.Sprintf(", at most %s %s", most, config.ShowTime(g.Most))
		}
		return said + " = " + config.ShowTime(length)
	}
	return fmt.Sprintf("%s, which is not what the settings of now come to: they were others then, or it took the place of another ban", config.ShowTime(length))
}

func often(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

// score says what the sequential test came to.
func score(f *detect.Found) string {
	if f.Score == 0 {
		return "a trap port decided"
	}
	return fmt.Sprintf("score %.1f, and %.1f decides; a port at which nobody is adds up to %.1f (docs/detection.md)", f.Score, full.Threshold, full.Step)
}
