package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"portsentry/internal/view"
)

// Join asks the daemon at socket to watch as j says beside what it does.
// Running is false, and nothing is wrong, where no daemon answers, or one that is
// stopping.
func Join(ctx context.Context, socket string, j view.Join) (m view.Modes, running bool, err error) {
	if running, err := answers(ctx, socket); !running || err != nil {
		return m, running, err
	}
	o := Options{Socket: &socket}
	q := url.Values{"config": {j.Config}, "tcp": {j.TCP}, "udp": {j.UDP}}
	body, err := o.ask(ctx, http.MethodPut, view.PathModes+"?"+q.Encode(), false, io.Discard)
	if err != nil {
		if running, gone := answers(ctx, socket); !running && gone == nil {
			return m, false, nil // it ended while we asked
		}
		return m, true, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&m); err != nil {
		return m, true, cutShort(err)
	}
	return m, !m.Stopping, nil
}

// answers reports whether somebody listens at socket.
func answers(ctx context.Context, socket string) (bool, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return false, nil
	}
	if err == nil {
		err = c.Close()
	}
	if err != nil {
		return true, unreachable(err, socket)
	}
	return true, nil
}
