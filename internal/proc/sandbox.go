package proc

import "fmt"

// Sandbox is what a process leaves itself.
type Sandbox struct {
	// Folders, all that is below them included. In those of Write, files are made,
	// written, renamed and removed: one that takes the place of another in a single
	// step begins beside it. In those of Remove and of Read, that alone.
	Write, Remove, Read []string

	Helper *Helper // may be sent signals; nil: nobody but ourselves

	files bool // are restricted
}

// Enter puts s in force in every thread, for good: Landlock for files, then a
// seccomp filter that knows what the daemon calls and answers EPERM to everything
// else. What this kernel does not have, or whoever started us forbids, is left out
// and named in lacks, in words for people: the rest holds all the same.
//
// Call it last, behind DropTo, which sets no_new_privs.
func (s *Sandbox) Enter() (lacks []string) {
	if err := s.restrictFiles(); err != nil {
		lacks = append(lacks, fmt.Sprintf("Landlock: %v", err))
	}
	if err := s.restrictCalls(); err != nil {
		lacks = append(lacks, fmt.Sprintf("seccomp filter: %v", err))
	}
	return lacks
}
