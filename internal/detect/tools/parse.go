package tools

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// Bounds of a file.
const (
	maxLine       = 1024 // bytes
	maxSignatures = 1024
	maxTools      = math.MaxUint8 // what a detect.Tool can count
)

// Parse reads signatures. What signatures.txt says at its head is the language. All
// mistakes are in the error, each with its line.
func Parse(r io.Reader) (*Set, error) {
	p := parser{words: vocabulary(), set: &Set{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var mistakes []error
	n := 0
	for lines.Scan() {
		n++
		text, _, _ := strings.Cut(lines.Text(), "#")
		if err := p.line(strings.Fields(text)); err != nil {
			mistakes = append(mistakes, fmt.Errorf("signatures: line %d: %w", n, err))
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		mistakes = append(mistakes, fmt.Errorf("signatures: line %d: longer than %d bytes", n+1, maxLine))
	case err != nil:
		mistakes = append(mistakes, fmt.Errorf("signatures: after line %d: %w", n, err))
	case p.set.version == "":
		mistakes = append(mistakes, errors.New(`signatures: no version; the file begins with a line like "version 2026.11"`))
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return p.set, nil
}

type parser struct {
	words words
	set   *Set
	count int
}

func (p *parser) line(w []string) error {
	switch {
	case len(w) == 0:
		return nil
	case w[0] == "version":
		if p.set.version != "" || p.count > 0 {
			return errors.New("the version stands once, before the signatures")
		}
		if len(w) != 2 {
			return errors.New(`a version is one word, as in "version 2026.11"`)
		}
		p.set.version = w[1]
		return nil
	case p.set.version == "":
		return fmt.Errorf(`the version stands before the signatures, as in "version 2026.11"%s`, meant(w[0], []string{"version"}))
	case p.count == maxSignatures:
		return fmt.Errorf("more than %d signatures", maxSignatures)
	}
	if strings.Contains(w[0], "=") || slices.Contains(p.words.all(), w[0]) {
		return fmt.Errorf("%s: a signature begins with the name of its program", w[0])
	}
	g, err := p.words.signature(w[1:])
	if err != nil {
		return err
	}
	i := slices.Index(p.set.names, w[0])
	if i < 0 {
		if i = len(p.set.names); i == maxTools {
			return fmt.Errorf("%s: more than %d programs", w[0], maxTools)
		}
		p.set.names = append(p.set.names, w[0])
	}
	g.tool = detect.Tool(i + 1)
	p.count++
	p.set.add(g)
	return nil
}

// add puts g into the lists of packets that it could fit.
func (s *Set) add(g *signature) {
	switch g.proto {
	case decode.ProtoUDP:
		s.udp = append(s.udp, g)
		return
	case decode.ProtoICMP:
		s.icmp = append(s.icmp, g)
		return
	}
	var goes [buckets]bool
	mark := func(windows span) {
		for w := windows.lo; w <= windows.hi; w++ {
			goes[bucket(w)] = true
		}
	}
	i := slices.IndexFunc(g.conds, func(c cond) bool { return c.field == fieldWindow })
	if i < 0 || g.conds[i].not {
		mark(span{0, math.MaxUint16})
	} else {
		mark(g.conds[i].first)
		for _, more := range g.conds[i].more {
			mark(more)
		}
	}
	for b, yes := range goes {
		if yes {
			s.tcp[b] = append(s.tcp[b], g)
		}
	}
}
