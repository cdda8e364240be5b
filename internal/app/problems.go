package app

import (
	"slices"
	"strings"
	"sync"
)

// problems are what does not work at the moment, each under a key of its own,
// in sentences. status shows them; each is also said once when it begins.
type problems struct {
	mu sync.Mutex
	// say is told of each that begins or is over; quiet: in words it is said
	// elsewhere. nil: nobody listens yet.
	say func(key, sentence string, over, quiet bool)
	now map[string]string
}

// set states the problem under key; "" says that it is over.
func (p *problems) set(key, sentence string) { p.put(key, sentence, false) }

// quiet states a problem, or its end, that is said elsewhere.
func (p *problems) quiet(key string, is bool, sentence string) {
	if !is {
		sentence = ""
	}
	p.put(key, sentence, true)
}

func (p *problems) put(key, sentence string, quiet bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.now[key]
	if was == sentence {
		return
	}
	over := sentence == ""
	if over {
		delete(p.now, key)
		sentence = was
	} else {
		if p.now == nil {
			p.now = make(map[string]string)
		}
		p.now[key] = sentence
	}
	if p.say != nil {
		p.say(key, sentence, over, quiet)
	}
}

// list gives the sentences in a fixed order.
func (p *problems) list() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	keys := make([]string, 0, len(p.now))
	for k := range p.now {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var out []string
	for _, k := range keys {
		out = append(out, strings.Split(p.now[k], "\n")...)
	}
	return out
}
