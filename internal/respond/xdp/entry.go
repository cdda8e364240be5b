package xdp

import (
	"net/netip"
	"time"

	"portsentry/internal/bpf"
	"portsentry/internal/detect"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
)

// entry is b as the program has it.
func entry(b *respond.Ban) bpf.Ban {
	return bpf.Ban{
		Prefix: b.Prefix, Until: b.Until, Strength: bpf.Strength(b.Strength), Protos: protos(b.Scope),
		Since: b.Since, Evidence: uint8(b.Evidence), Kind: uint8(detect.ParseKind(b.Kind)), Port: b.Port, Proto: b.Proto,
		Times: uint32(b.Times),
	}
}

// ban is the reverse of entry. An entry may be another version's.
func ban(b *bpf.Ban) respond.Ban {
	out := respond.Ban{
		Prefix: b.Prefix, Until: b.Until, Strength: judge.Strength(b.Strength), Scope: scope(b.Protos),
		Since: b.Since, Evidence: min(judge.Evidence(b.Evidence), judge.E3), Port: b.Port, Proto: b.Proto, Times: int(b.Times),
	}
	if word := detect.Kind(b.Kind).String(); detect.ParseKind(word) != detect.KindNone {
		out.Kind = word
	}
	return out
}

// pardon says that nothing is to be done about p, whatever the program has begun.
func pardon(p netip.Prefix, now time.Time) bpf.Ban {
	return bpf.Ban{Prefix: p, Since: now, Until: now.Add(pardonTime), Strength: bpf.Pardon}
}

// stands reports whether an entry has not ended.
func stands(b *bpf.Ban, now time.Time) bool { return b.Until.IsZero() || b.Until.After(now) }

func protos(s judge.Scope) bpf.Protos {
	switch s {
	case judge.TCPOnly:
		return bpf.BanTCP
	case judge.UDPOnly:
		return bpf.BanUDP
	}
	return bpf.BanAll
}

func scope(p bpf.Protos) judge.Scope {
	switch p {
	case bpf.BanTCP:
		return judge.TCPOnly
	case bpf.BanUDP:
		return judge.UDPOnly
	}
	return judge.AllProtocols
}
