package control

import (
	"bufio"
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"strconv"
	"time"

	"portsentry/internal/view"
)

// State says how things are now.
type State interface {
	Status(ctx context.Context) (view.Status, error)
	// Bans gives those in force one by one; each is only good until the next.
	Bans(ctx context.Context) (iter.Seq[*view.Ban], error)
}

// state are the routes of State.
func (s *Server) state(b State) []route {
	if b == nil {
		return nil
	}
	return []route{
		{method: http.MethodGet, path: view.PathStatus, answer: func(w http.ResponseWriter, r *asked) {
			st, err := b.Status(r.Context())
			if err != nil {
				s.failed(w, err)
				return
			}
			answer(w, st)
		}},
		{method: http.MethodGet, path: view.PathBans, answer: func(w http.ResponseWriter, r *asked) {
			bans, err := b.Bans(r.Context())
			if err != nil {
				s.failed(w, err)
				return
			}
			writeBans(w, bans)
		}},
	}
}

// writeBans writes one ban after the other: half a million of them fit into no
// buffer one would like to hold.
func writeBans(w http.ResponseWriter, bans iter.Seq[*view.Ban]) {
	b := bufio.NewWriterSize(w, 64<<10)
	_, _ = b.WriteString(`{"bans":[`)
	more := false
	for ban := range bans {
		line := b.AvailableBuffer()
		if more {
			line = append(line, ',')
		}
		more = true
		if _, err := b.Write(append(appendBan(line, ban), '\n')); err != nil {
			return // the client has gone
		}
	}
	_, _ = b.WriteString("]}\n")
	_ = b.Flush()
}

// appendBan appends b as encoding/json writes it, in a sixth of the time.
func appendBan(to []byte, b *view.Ban) []byte {
	to = append(b.Prefix.AppendTo(append(to, `{"prefix":"`...)), '"')
	to = appendText(append(to, `,"scope":`...), b.Scope)
	to = appendText(append(to, `,"strength":`...), b.Strength)
	to = appendText(append(to, `,"evidence":`...), b.Evidence)
	to = appendTime(append(to, `,"since":`...), b.Since)
	to = append(to, `,"until":`...)
	if b.Until != nil {
		to = appendTime(to, *b.Until)
	} else {
		to = append(to, "null"...)
	}
	to = strconv.AppendInt(append(to, `,"times":`...), int64(b.Times), 10)
	to = appendText(append(to, `,"reason":`...), b.Reason)
	to = append(to, `,"methods":[`...)
	for i, m := range b.Methods {
		if i > 0 {
			to = append(to, ',')
		}
		to = appendText(to, m)
	}
	to = append(to, ']')
	if b.Note != "" {
		to = appendText(append(to, `,"note":`...), b.Note)
	}
	if b.Dropped != nil {
		to = strconv.AppendUint(append(to, `,"dropped":`...), *b.Dropped, 10)
	}
	if b.Alive {
		to = append(to, `,"alive":true`...)
	}
	return append(to, '}')
}

func appendTime(to []byte, t time.Time) []byte {
	return append(t.AppendFormat(append(to, '"'), time.RFC3339Nano), '"')
}

func appendText(to []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string always can be
			return append(to, quoted...)
		}
	}
	return append(append(append(to, '"'), s...), '"')
}
