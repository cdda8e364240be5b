package cli

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"net/url"

	"portsentry/internal/view"
)

// Status asks the daemon at socket how it is.
func Status(ctx context.Context, socket string) (st view.Status, err error) {
	o := Options{Socket: &socket}
	err = o.get(ctx, view.PathStatus, &st, false, io.Discard)
	return st, err
}

// Bans asks the daemon at socket who is banned.
func Bans(ctx context.Context, socket string) ([]view.Ban, error) {
	o := Options{Socket: &socket}
	var list view.BanList
	err := o.get(ctx, view.PathBans, &list, false, io.Discard)
	return list.Bans, err
}

// Unban asks the daemon at socket to lift every ban of addr, and gives them.
func Unban(ctx context.Context, socket string, addr netip.Addr) ([]view.Ban, error) {
	o := Options{Socket: &socket}
	body, err := o.ask(ctx, http.MethodDelete, view.PathBans+"/"+url.PathEscape(addr.String()), false, io.Discard)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	var done view.Unbanned
	err = decode(body, &done)
	return done.Lifted, err
}
