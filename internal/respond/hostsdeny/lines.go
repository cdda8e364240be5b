package hostsdeny

import "bytes"

// lines calls f with each line of text, its end included, and whether it is a
// rule of its own: a line behind a backslash continues the one before.
func lines(text []byte, f func(line []byte, own bool)) {
	own := true
	for len(text) > 0 {
		n := bytes.IndexByte(text, '\n') + 1
		if n == 0 {
			n = len(text)
		}
		f(text[:n], own)
		own = !continues(text[:n])
		text = text[n:]
	}
}

// continues reports whether the next line belongs to this one.
func continues(line []byte) bool {
	return bytes.HasSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte(`\`))
}

// same compares a line of the file with one of ours. The wrappers take a
// carriage return for a blank.
func same(line []byte, ours string) bool {
	return string(bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))) == ours
}

// appendLine returns text with line at its end, as a rule of its own and with
// the line ends the file has; or text, when line is in it.
func appendLine(text []byte, line string) []byte {
	found, open := false, false
	end := "\n"
	lines(text, func(l []byte, own bool) {
		found = found || own && same(l, line)
		open = continues(l)
		if bytes.HasSuffix(l, []byte("\r\n")) {
			end = "\r\n"
		} else if bytes.HasSuffix(l, []byte("\n")) {
			end = "\n"
		}
	})
	if found {
		return text
	}
	out := make([]byte, 0, len(text)+len(line)+6)
	out = append(out, text...)
	if len(text) > 0 && text[len(text)-1] != '\n' {
		out = append(out, end...)
	}
	if open {
		out = append(out, end...) // an empty line ends what the backslash continued
	}
	return append(append(out, line...), end...)
}

// removeLine returns text without every line that is line.
func removeLine(text []byte, line string) []byte {
	out := make([]byte, 0, len(text))
	lines(text, func(l []byte, own bool) {
		if !own || !same(l, line) {
			out = append(out, l...)
		}
	})
	return out
}
