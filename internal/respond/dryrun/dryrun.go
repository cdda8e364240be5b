// Package dryrun is the native method that bans nobody: bans go in, and nothing
// comes out. The book of bans and the log say what would have been done, every
// packet goes on being itemised, and nobody is called blocked.
package dryrun

import (
	"context"

	"portsentry/internal/config"
	"portsentry/internal/respond"
)

// Method is a dry run. It has nothing to remember: the book does.
type Method struct{}

// New makes a dry run.
func New() *Method { return &Method{} }

// Name is the method's name in BLOCK_METHOD.
func (*Method) Name() string { return string(config.MethodDryRun) }

// Takes is for respond.Method: it would ban anybody.
func (*Method) Takes(*respond.Ban) bool { return true }

// Enforces is for respond.Method: nobody is kept out.
func (*Method) Enforces() bool { return false }

// Ends is for respond.Method: nothing is left to be taken out.
func (*Method) Ends() bool { return true }

// BanAll is for respond.Method.
func (*Method) BanAll(context.Context, []respond.Ban) error { return nil }

// Unban is for respond.Method.
func (*Method) Unban(context.Context, respond.Ban) error { return nil }
