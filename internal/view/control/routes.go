package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"portsentry/internal/view"
)

// route is one row of the table of what is answered.
type route struct {
	method string // GET, or for a change POST, PUT, DELETE
	path   string
	below  bool // path + "/" + what: asked.what is not empty
	root   bool // else for the members of the group too
	// follows: the answer goes on until its reader leaves or the daemon stops. The
	// handler sees to its deadlines by itself, with an http.ResponseController.
	follows bool
	answer  func(w http.ResponseWriter, r *asked)
}

// asked is a request by somebody who may make it.
type asked struct {
	*http.Request
	who  view.Caller
	what string // what follows the path of a route with below
}

// Backend is who answers the control socket, by group of routes. Nothing is
// answered of a group that nobody answers for.
type Backend struct {
	State   State
	Changes Changes
	Past    Past
	Health  Health
}

// table is everything that is answered.
func (s *Server) table(b *Backend) []route {
	return slices.Concat(s.state(b.State), s.changes(b.Changes), s.past(b.Past), s.health(b.Health))
}

// serve answers one request, behind the check of who asks.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.serving.Add(1)
	defer s.serving.Add(-1)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	who, allowed := peerOf(r)
	if !allowed {
		s.refuseStranger(w, who)
		return
	}
	if r.ContentLength != 0 { // -1: chunked
		w.Header().Set("Connection", "close")
		refuse(w, http.StatusRequestEntityTooLarge, "the request has a body", "no request of this version has one")
		return
	}
	row, what := s.find(w, r)
	switch {
	case row == nil:
		return
	case row.root && !who.Root:
		refuse(w, http.StatusForbidden, r.Method+" "+row.path+" is root's alone", "try sudo")
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if row.follows {
		defer context.AfterFunc(s.ending, cancel)()
	} else {
		ctx, cancel = context.WithTimeout(ctx, answerTimeout)
		defer cancel()
	}
	row.answer(w, &asked{r.WithContext(ctx), who, what})
}

// find is the row that r asks for. Where there is none it says so and gives nil.
func (s *Server) find(w http.ResponseWriter, r *http.Request) (row *route, what string) {
	var methods []string
	for i := range s.routes {
		row := &s.routes[i]
		what, fits := "", r.URL.Path == row.path
		if row.below {
			what, fits = strings.CutPrefix(r.URL.Path, row.path+"/")
		}
		if fits && r.Method == row.method {
			return row, what
		}
		if fits {
			methods = append(methods, row.method)
		}
	}
	if len(methods) > 0 {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		refuse(w, http.StatusMethodNotAllowed, r.Method+" is not done here", "use "+strings.Join(methods, " or "))
		return nil, ""
	}
	var paths []string
	for i := range s.routes {
		if p := s.routes[i].path; !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	refuse(w, http.StatusNotFound, "no such page", "this version answers "+strings.Join(paths, ", "))
	return nil, ""
}

// failed says why there is no answer.
func (s *Server) failed(w http.ResponseWriter, err error) {
	var no *view.Refusal
	switch {
	case errors.As(err, &no):
		w.WriteHeader(no.Status)
		answer(w, no)
	case errors.Is(err, context.DeadlineExceeded):
		refuse(w, http.StatusServiceUnavailable, "no answer within "+answerTimeout.String(), "portsentry is very busy; try again")
	default:
		refuse(w, http.StatusInternalServerError, err.Error(), "")
	}
}

// refuseStranger counts everybody and logs one in ten seconds.
func (s *Server) refuseStranger(w http.ResponseWriter, who view.Caller) {
	n := s.refused.Add(1)
	now, next := time.Now().UnixNano(), s.nextLog.Load()
	if now >= next && s.nextLog.CompareAndSwap(next, now+int64(10*time.Second)) {
		s.log.Warn("refused somebody at the control socket", "uid", who.UID, "gid", who.GID, "pid", who.PID, "refused_total", n)
	}
	w.Header().Set("Connection", "close")
	hint := "ask as root"
	if s.listener.gid >= 0 {
		hint = "ask as root or as a member of group " + s.group
	}
	refuse(w, http.StatusForbidden, "you may not ask portsentry", hint)
}

// answer and refuse leave a failed write to the client, who has gone.
func answer(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

func refuse(w http.ResponseWriter, status int, message, hint string) {
	w.WriteHeader(status)
	answer(w, view.Refusal{Message: message, Hint: hint})
}
