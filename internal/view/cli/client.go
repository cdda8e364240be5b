package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"portsentry/internal/view"
)

// patience is longer than the daemon gives itself for an answer.
const patience = 15 * time.Second

// ask sends one request and gives the body of a good answer. Of any other it
// makes an Error, and with asJSON copies it to out first.
func (o *Options) ask(ctx context.Context, method, path string, asJSON bool, out io.Writer) (io.ReadCloser, error) {
	if ctx == nil { // the command was executed without one
		ctx = context.Background()
	}
	socket := *o.Socket
	c := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives:     true,
		ResponseHeaderTimeout: patience,
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://portsentry"+path, http.NoBody)
	if err != nil {
		return nil, &Error{2, err.Error(), ""}
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, unreachable(err, socket)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, cutShort(err)
	}
	if asJSON {
		if _, err := out.Write(body); err != nil {
			return nil, unwritten(err)
		}
	}
	var refusal view.Refusal
	if json.Unmarshal(body, &refusal) != nil || refusal.Message == "" {
		return nil, &Error{2, "what answers at " + socket + " does not speak as portsentry does (" + resp.Status + ")", ""}
	}
	return nil, refused(resp.StatusCode, &refusal)
}

// maxSocketName is what sockaddr_un has room for, unix(7).
const maxSocketName = 107

// refused is an answer other than what was asked for. What the daemon has weighed and
// does not do is said in its own words.
func refused(status int, r *view.Refusal) *Error {
	e := &Error{2, view.Printable(r.Message), view.Printable(r.Hint)}
	switch status {
	case http.StatusConflict, http.StatusTooManyRequests:
	case http.StatusGone:
		e.Code = 1
	default:
		e.Message = "portsentry says: " + e.Message
	}
	for i := len(r.Mistakes) - 1; i >= 0; i-- {
		e.Message = view.Printable(r.Mistakes[i]) + "\n" + e.Message
	}
	return e
}

// unreachable says why nobody answered, and what to do.
func unreachable(err error, socket string) *Error {
	const start = "start it with: sudo portsentry"
	var timeout net.Error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Error{2, "portsentry is not running (no socket at " + socket + ")", start}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Error{2, "portsentry is not running (nobody listens at " + socket + ")", start}
	case errors.Is(err, fs.ErrPermission):
		return &Error{2, "you may not open " + socket, "root and the members of group " + view.Group + " may: try sudo"}
	case errors.Is(err, context.Canceled):
		return &Error{2, "interrupted", ""}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &Error{2, "portsentry did not answer within " + patience.String(), "it may be very busy: try again"}
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return &Error{2, "portsentry hung up without an answer", "it may be stopping: try again"}
	}
	if len(socket) > maxSocketName {
		err = fmt.Errorf("a socket has a name of at most %d bytes", maxSocketName)
	}
	return &Error{2, "cannot ask portsentry at " + socket + ": " + err.Error(), ""}
}

// cutShort wraps what went wrong in the middle of an answer.
func cutShort(err error) error {
	if err == nil {
		return nil
	}
	if _, ours := errors.AsType[*fs.PathError](err); ours { // what is copied on is no file
		return unwritten(err)
	}
	return &Error{2, "the answer broke off: " + err.Error(), "it is not whole: try again"}
}
