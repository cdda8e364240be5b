package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"portsentry/internal/view"
)

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
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	r = r.WithContext(ctx)

	target, hasTarget := strings.CutPrefix(r.URL.Path, view.PathBans+"/")
	switch {
	case hasTarget:
		if only(w, r, http.MethodDelete) {
			s.unban(w, r, who, target)
		}
	case r.URL.Path == view.PathStatus:
		if only(w, r, http.MethodGet) {
			s.status(w, r)
		}
	case r.URL.Path == view.PathBans:
		if only(w, r, http.MethodGet) {
			s.bans(w, r)
		}
	case r.URL.Path == view.PathModes:
		if only(w, r, http.MethodPut) {
			s.join(w, r, who)
		}
	default:
		refuse(w, http.StatusNotFound, "no such page", "this version answers "+view.PathStatus+", "+view.PathBans+" and "+view.PathModes)
	}
}

// only refuses every other method.
func only(w http.ResponseWriter, r *http.Request, method string) bool {
	if r.Method == method {
		return true
	}
	w.Header().Set("Allow", method)
	refuse(w, http.StatusMethodNotAllowed, r.Method+" is not done here", "use "+method)
	return false
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	st, err := s.backend.Status(r.Context())
	if err != nil {
		s.failed(w, err)
		return
	}
	answer(w, st)
}

// bans writes one ban after the other: half a million of them fit into no
// buffer one would like to hold.
func (s *Server) bans(w http.ResponseWriter, r *http.Request) {
	bans, err := s.backend.Bans(r.Context())
	if err != nil {
		s.failed(w, err)
		return
	}
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

func (s *Server) unban(w http.ResponseWriter, r *http.Request, who view.Caller, target string) {
	addr, err := view.ParseTarget(target)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error(), "")
		return
	}
	lifted, err := s.backend.Unban(r.Context(), who, addr)
	if err != nil {
		s.failed(w, err)
		return
	}
	if lifted == nil {
		lifted = []view.Ban{}
	}
	s.log.Info("asked to unban", "address", addr, "lifted", len(lifted), "uid", who.UID, "pid", who.PID)
	answer(w, view.Unbanned{Address: addr, Lifted: lifted})
}

// join is root's alone: it changes what is watched.
func (s *Server) join(w http.ResponseWriter, r *http.Request, who view.Caller) {
	if !who.Root {
		refuse(w, http.StatusForbidden, "only root says what is watched", "")
		return
	}
	q := r.URL.Query()
	modes, err := s.backend.Join(r.Context(), who, view.Join{Config: q.Get("config"), TCP: q.Get("tcp"), UDP: q.Get("udp")})
	if err != nil {
		s.failed(w, err)
		return
	}
	answer(w, modes)
}

func (s *Server) failed(w http.ResponseWriter, err error) {
	if errors.Is(err, context.DeadlineExceeded) {
		refuse(w, http.StatusServiceUnavailable, "no answer within "+answerTimeout.String(), "portsentry is very busy; try again")
		return
	}
	refuse(w, http.StatusInternalServerError, err.Error(), "")
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
