package control

import (
	"context"
	"net/http"

	"portsentry/internal/view"
)

// Health says whether all is well.
type Health interface {
	Health(ctx context.Context) (view.Health, error)
}

// health is the route of Health. Being unwell is an answer like any other here:
// its status is 200.
func (s *Server) health(b Health) []route {
	if b == nil {
		return nil
	}
	return []route{{method: http.MethodGet, path: view.PathHealth, answer: func(w http.ResponseWriter, r *asked) {
		h, err := b.Health(r.Context())
		if err != nil {
			s.failed(w, err)
			return
		}
		answer(w, h)
	}}}
}
