package cli

import (
	"math"
	"strconv"
	"time"

	"portsentry/internal/view"
)

// parseBan reads a ban as a daemon of this version writes it, without its last brace: its
// members in their order, nothing between them, and no text that has to be unquoted. ok is
// false for anything else, however right it is; b is of no use then. What b has in common
// with like, it shares with it.
func parseBan(line []byte, b, like *view.Ban) (ok bool) {
	p := banLine{line, true}
	*b = view.Ban{}
	p.unmarshal(`{"prefix":"`, b.Prefix.UnmarshalText)
	b.Scope = p.text(`,"scope":"`, like.Scope)
	b.Strength = p.text(`,"strength":"`, like.Strength)
	b.Evidence = p.text(`,"evidence":"`, like.Evidence)
	p.unmarshal(`,"since":"`, b.Since.UnmarshalText)
	if !p.has(`,"until":null`) {
		b.Until = new(time.Time)
		p.unmarshal(`,"until":"`, b.Until.UnmarshalText)
	}
	b.Times = int(p.number(`,"times":`, math.MaxInt))
	b.Reason = p.text(`,"reason":"`, like.Reason)
	b.Methods = p.texts(`,"methods":[`, like.Methods)
	if p.has(`,"note":"`) {
		b.Note = p.quoted(like.Note)
	}
	if p.begins(`,"dropped":`) {
		b.Dropped = new(p.number(`,"dropped":`, math.MaxUint64))
	}
	b.Alive = p.has(`,"alive":true`)
	return p.ok && len(p.rest) == 0
}

// banLine is what is left of a line to be read, while all is as expected.
type banLine struct {
	rest []byte
	ok   bool
}

func (p *banLine) begins(with string) bool {
	return len(p.rest) >= len(with) && string(p.rest[:len(with)]) == with
}

// has reports whether what is left begins so, and goes past it.
func (p *banLine) has(what string) bool {
	if !p.begins(what) {
		return false
	}
	p.rest = p.rest[len(what):]
	return true
}

func (p *banLine) need(what string) { p.ok = p.has(what) && p.ok }

// raw is what stands before the next quote, which it goes past.
func (p *banLine) raw() []byte {
	for i, c := range p.rest {
		switch {
		case c == '"':
			raw := p.rest[:i]
			p.rest = p.rest[i+1:]
			return raw
		case c < ' ' || c >= 0x7f || c == '\\':
			p.ok = false
			return nil
		}
	}
	p.ok = false
	return nil
}

// quoted is raw as a string: like itself where it is the same.
func (p *banLine) quoted(like string) string {
	if raw := p.raw(); string(raw) != like {
		return string(raw)
	}
	return like
}

func (p *banLine) text(before, like string) string {
	p.need(before)
	return p.quoted(like)
}

func (p *banLine) texts(before string, like []string) []string {
	p.need(before)
	same, n := like != nil, 0
	begin := *p
	for p.ok && !p.has(`]`) {
		if n > 0 {
			p.need(`,`)
		}
		p.need(`"`)
		raw := p.raw()
		same = same && n < len(like) && string(raw) == like[n]
		n++
	}
	switch {
	case !p.ok:
		return nil
	case same && n == len(like):
		return like
	}
	list := make([]string, 0, n)
	for range n {
		begin.has(`,`)
		begin.has(`"`)
		list = append(list, string(begin.raw()))
	}
	return list
}

// unmarshal gives the text behind before to f, which is how encoding/json reads it.
func (p *banLine) unmarshal(before string, f func(text []byte) error) {
	p.need(before)
	if raw := p.raw(); p.ok && f(raw) != nil {
		p.ok = false
	}
}

// number is that behind before.
func (p *banLine) number(before string, most uint64) uint64 {
	p.need(before)
	n := 0
	for n < len(p.rest) && '0' <= p.rest[n] && p.rest[n] <= '9' {
		n++
	}
	v, err := strconv.ParseUint(string(p.rest[:n]), 10, 64)
	p.ok = p.ok && err == nil && v <= most && (n == 1 || p.rest[0] != '0')
	p.rest = p.rest[n:]
	return v
}
