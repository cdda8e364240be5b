package tools

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"portsentry/internal/config"
	"portsentry/internal/decode"
)

// builder reads one signature.
type builder struct {
	words  *words
	g      signature
	on     protocols
	is4    bool   // ip4 stands there
	only4  string // a word that needs it
	unkept bool   // the number of the run is not to be had of an earlier packet
	limits []limit
	seen   map[string]bool
	asked  int
}

// limit is a word that some protocols do not have.
type limit struct {
	word string
	on   protocols
}

// signature reads what stands behind the name of the program.
func (v *words) signature(line []string) (*signature, error) {
	b := builder{words: v, seen: make(map[string]bool)}
	b.g.shapes = 1<<shape6 | 1<<shape4 | 1<<shape4DF
	for i := range b.g.flags {
		b.g.flags[i] = math.MaxUint64
	}
	for _, word := range line {
		if err := b.word(word); err != nil {
			return nil, fmt.Errorf("%s: %w", word, err)
		}
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	return &b.g, nil
}

func (b *builder) word(word string) error {
	if r, ok := b.words.relations[word]; ok {
		return b.relation(word, r)
	}
	if p, ok := b.words.protocols[word]; ok {
		b.g.proto, b.on = p.number, p.set
		return b.once("protocol")
	}
	name, value, has := strings.Cut(word, "=")
	name, not := strings.CutSuffix(name, "!")
	switch {
	case word == "ip4":
		b.is4 = true
		b.g.shapes &^= 1 << shape6
		return b.once("family")
	case word == "ip6":
		b.g.shapes &= 1 << shape6
		return b.once("family")
	case word == "same-run":
		b.g.same = true
		b.asked++
		return b.once(word)
	case !has:
		return fmt.Errorf("not a word of a signature%s", meant(word, b.words.all()))
	case name == "run" && !not:
		return b.run(word, value)
	case name == "df" && !not:
		return b.fragment(value)
	case name == "flags":
		return b.flags(word, value, not)
	}
	return b.number(word, name, value, not)
}

// once reports what stands twice.
func (b *builder) once(name string) error {
	if b.seen[name] {
		return fmt.Errorf("there is a %s already", name)
	}
	b.seen[name] = true
	return nil
}

func (b *builder) needs(word string, on protocols, only4 bool) {
	b.limits = append(b.limits, limit{word, on})
	if only4 {
		b.only4 = word
	}
}

func (b *builder) relation(word string, r relation) error {
	if r.within != nil {
		b.g.within = append(b.g.within, r.within)
	} else {
		b.g.across = append(b.g.across, r.across)
	}
	b.asked++
	b.needs(word, r.on, r.only4)
	return b.once(word)
}

func (b *builder) run(word, value string) error {
	r, ok := b.words.runs[value]
	if !ok {
		return fmt.Errorf("no number of a run%s", meant(value, slices.Sorted(maps.Keys(b.words.runs))))
	}
	b.g.run, b.unkept = r.of, r.unkept
	b.needs(word, r.on, r.only4)
	return b.once("run")
}

func (b *builder) fragment(value string) error {
	switch value {
	case "yes":
		b.g.shapes &^= 1 << shape4
	case "no":
		b.g.shapes &^= 1 << shape4DF
	default:
		return errors.New("df is yes or no")
	}
	return b.once("df")
}

func (b *builder) number(word, name, value string, not bool) error {
	n, ok := b.words.fields[name]
	if !ok {
		return fmt.Errorf("%s is no number of a header%s", name, meant(name, b.words.all()))
	}
	var spans []span
	for _, v := range strings.Split(value, ",") {
		s, err := n.span(v)
		if err != nil {
			return fmt.Errorf("%w%s", err, meant(word, slices.Sorted(maps.Keys(b.words.relations))))
		}
		spans = append(spans, s)
	}
	b.g.conds = append(b.g.conds, cond{field: n.field, not: not, first: spans[0], more: spans[1:]})
	b.asked++
	b.needs(word, n.on, n.only4)
	return b.once(name)
}

// flags reads combinations of TCP flags.
func (b *builder) flags(word, value string, not bool) error {
	var set [len(b.g.flags)]uint64
	for _, v := range strings.Split(value, ",") {
		f, err := b.words.combination(v)
		if err != nil {
			return err
		}
		set[f>>6] |= 1 << (f & 63)
	}
	for i := range set {
		if not {
			set[i] = ^set[i]
		}
	}
	b.g.flags = set
	b.asked++
	b.needs(word, onTCP, false)
	return b.once("flags")
}

// span reads a number or a range.
func (n numbers) span(text string) (span, error) {
	low, high, isRange := strings.Cut(text, "-")
	if !isRange {
		high = low
	}
	lo, errLo := strconv.ParseUint(low, 10, 32)
	hi, errHi := strconv.ParseUint(high, 10, 32)
	switch {
	case errLo != nil || errHi != nil || hi > uint64(n.most):
		return span{}, fmt.Errorf("%q is no number from 0 to %d and no range of them", text, n.most)
	case lo > hi:
		return span{}, fmt.Errorf("%q is upside down: %d-%d", text, hi, lo)
	}
	return span{uint32(lo), uint32(hi)}, nil
}

// combination reads flags that are set together.
func (v *words) combination(text string) (all uint16, err error) {
	for _, name := range strings.Split(text, "+") {
		f, ok := v.flags[name]
		if !ok {
			return 0, fmt.Errorf("%q is no TCP flag%s", name, meant(name, slices.Sorted(maps.Keys(v.flags))))
		}
		if f == 0 && text != name || all&f != 0 {
			return 0, fmt.Errorf("%q contradicts itself", text)
		}
		all |= f
	}
	return all, nil
}

// check is for what only the whole line shows.
func (b *builder) check() error {
	switch {
	case b.g.proto == 0:
		return errors.New("no protocol: tcp, udp or icmp")
	case b.only4 != "" && !b.is4:
		return fmt.Errorf("%s: in IPv4 only, so ip4 has to stand there", b.only4)
	case b.g.proto == decode.ProtoICMP && !b.is4:
		return errors.New("icmp: that of IPv4, so ip4 has to stand there")
	case b.g.same && b.g.run == nil:
		return errors.New("same-run: needs a run= to compare")
	case b.g.same && b.unkept:
		return errors.New("same-run: of the packet before the acknowledgement is not kept")
	case b.asked < 2:
		return errors.New("asks for fewer than two things: too many packets would have this name")
	}
	for _, l := range b.limits {
		if l.on&b.on == 0 {
			return fmt.Errorf("%s: this protocol has no such thing", l.word)
		}
	}
	return nil
}

// all are the words that a signature may have, without values.
func (v *words) all() []string {
	all := slices.Concat(slices.Collect(maps.Keys(v.fields)), slices.Collect(maps.Keys(v.protocols)),
		slices.Collect(maps.Keys(v.relations)), []string{"ip4", "ip6", "df", "flags", "run", "same-run", "version"})
	slices.Sort(all)
	return all
}

// meant is what was probably meant, as the end of a message.
func meant(word string, known []string) string {
	if s := config.Suggest(word, known); s != "" && s != word {
		return "; did you mean " + s + "?"
	}
	return ""
}
