package config

import (
	"errors"
	"fmt"
)

// Mode is a way of watching the ports of one protocol.
type Mode uint8

// Modes. The words of 1.x are in the comments, for TCP and for UDP.
const (
	Unwatched Mode = iota
	Connect        // trap sockets take what comes: tcp, udp
	Stealth        // packets are looked at below the sockets: stcp, sudp
	Advanced       // as Stealth, for the ports below ADVANCED_PORTS_*: atcp, audp
)

// Modes says how each protocol is watched.
type Modes struct{ TCP, UDP Mode }

// Dialect is the generation of PortSentry whose habits are asked for.
type Dialect uint8

// Dialects. Started with a flag of 1.x it is Dialect1x, else Dialect2x.
const (
	Dialect2x Dialect = iota
	Dialect1x
)

// Word is the mode as $MODE$ and the names of the files of 1.x have it.
func (m Mode) Word(d Dialect, udp bool) string {
	if d == Dialect2x {
		return [...]string{"none", "connect", "stealth", "advanced"}[m]
	}
	if udp {
		return [...]string{"none", "udp", "sudp", "audp"}[m]
	}
	return [...]string{"none", "tcp", "stcp", "atcp"}[m]
}

// modeWords are the modes of 1.x, without the dash of a flag.
func modeWords() []string { return []string{"tcp", "udp", "stcp", "sudp", "atcp", "audp"} }

// ModesFromWords gives the modes that words of 1.x ask for (tcp, udp, stcp,
// sudp, atcp, audp), one for each protocol at most. A protocol that none of
// them is about is Unwatched.
func ModesFromWords(words []string) (Modes, error) {
	var m Modes
	for _, w := range words {
		if problem := m.add(w); problem != "" {
			return Modes{}, errors.New(problem)
		}
	}
	return m, nil
}

// add takes one word of 1.x in, or says what is wrong with it.
func (m *Modes) add(word string) (problem string) {
	var mode Mode
	var udp bool
	switch word {
	case "tcp", "udp":
		mode, udp = Connect, word == "udp"
	case "stcp", "sudp":
		mode, udp = Stealth, word == "sudp"
	case "atcp", "audp":
		mode, udp = Advanced, word == "audp"
	default:
		_, problems := readWord(word, modeWords())
		return problems[0]
	}
	to, name := &m.TCP, "TCP"
	if udp {
		to, name = &m.UDP, "UDP"
	}
	if *to != Unwatched && *to != mode {
		return fmt.Sprintf("%s and %s: one mode for %s only; keep one", to.Word(Dialect1x, udp), word, name)
	}
	*to = mode
	return ""
}
