package command

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Status is what came of a step.
type Status uint8

// Statuses. OK and Skipped are no failures.
const (
	OK       Status = iota // exit status 0; the line was written
	Skipped                // nothing to do; the text says why
	Exited                 // another exit status
	Signaled               // ended by a signal that was not ours
	TimedOut               // ended by us after the time limit
	Stopped                // ended by us because portsentry stops
	NotRun                 // the program could not be started, the file not be written
	Refused                // the helper does not take such a record

	lastStatus = Refused
)

// ErrHelperGone is in every Action that the helper's end prevented.
var ErrHelperGone = errors.New("the command helper has ended; restart portsentry to have commands run again")

// Error is the failure of one step.
type Error struct {
	Status Status
	Code   int    // exit status or signal number
	Detail string // the end of what the command said, or why it could not be run
}

// Error says what went wrong in one line.
func (e *Error) Error() string {
	var s string
	switch e.Status {
	case Exited:
		switch e.Code {
		case 127: // sh: command not found
			s = "the command could not be found (exit status 127)"
		case 126: // sh: found, not executable
			s = "the command could not be run (exit status 126; is it executable?)"
		default:
			s = fmt.Sprintf("the command failed with exit status %d", e.Code)
		}
	case Signaled:
		name := unix.SignalName(unix.Signal(e.Code))
		if name == "" { // a real-time signal
			name = fmt.Sprint(e.Code)
		}
		s = "the command was ended by signal " + name
	case TimedOut:
		s = fmt.Sprintf("the command was still running after %s and was ended", timeLimit)
	case Stopped:
		s = "the command was ended because portsentry stops"
	case Refused:
		s = "the command helper refused the request"
	default:
		s = "it could not be done"
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// printable makes one line of whatever a command wrote: no control characters
// reach a log, and what is no UTF-8 shows as U+FFFD.
func printable(b []byte) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, unicode.IsPrint(r):
			return r
		}
		return ' '
	}, string(b))
	return strings.TrimSpace(s)
}
