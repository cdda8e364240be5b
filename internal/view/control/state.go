package control

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"

	"portsentry/internal/view"
)

// State says how things are now.
type State interface {
	Status(ctx context.Context) (view.Status, error)
	Bans(ctx context.Context) ([]view.Ban, error)
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
func writeBans(w http.ResponseWriter, bans []view.Ban) {
	b := bufio.NewWriterSize(w, 64<<10)
	one := json.NewEncoder(b)
	_, _ = b.WriteString(`{"bans":[`)
	for i := range bans {
		if i > 0 {
			_ = b.WriteByte(',')
		}
		if one.Encode(&bans[i]) != nil {
			panic(http.ErrAbortHandler) // cut the answer, so that nobody takes it for whole
		}
	}
	_, _ = b.WriteString("]}\n")
	_ = b.Flush()
}
