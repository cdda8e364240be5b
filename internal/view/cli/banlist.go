package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"portsentry/internal/view"
)

const (
	listBegin = `{"bans":[`
	listEnd   = "]}\n"
	lineRoom  = 64 << 10 // bytes: hundreds of bans
)

// readBans reads a view.BanList, of which the list alone is looked at. A daemon of this
// version writes one ban a line, which is read in a tenth of the time that encoding/json
// takes; from the first line on that is not so, encoding/json reads all that is left. A
// ban is only good until the next; what it points to stays.
func readBans(body io.Reader, take func(b *view.Ban)) error {
	r := bufio.NewReaderSize(body, lineRoom)
	if begin, _ := r.Peek(len(listBegin)); string(begin) != listBegin {
		return decodeBans(json.NewDecoder(r), take) // and its error, if that is why
	}
	_, _ = r.Discard(len(listBegin))
	var bans [2]view.Ban // this one and the one before it
	for n := 0; ; n++ {
		line, err := r.ReadSlice('\n')
		ban, listed := bytes.CutSuffix(line, []byte("}\n"))
		if n > 0 && listed {
			ban, listed = bytes.CutPrefix(ban, []byte(","))
		}
		b := &bans[n%2]
		switch {
		case err == nil && string(line) == listEnd:
			return nil
		case err == nil && listed && parseBan(ban, b, &bans[1-n%2]):
			take(b)
			continue
		}
		// What is left is a list of its own, behind a ban that has been taken.
		begin, taken := listBegin, 0
		if n > 0 {
			begin, taken = listBegin+"{}", 1
		}
		rest := io.MultiReader(strings.NewReader(begin), bytes.NewReader(slices.Clone(line)), r)
		return decodeBans(json.NewDecoder(rest), func(b *view.Ban) {
			if taken--; taken < 0 {
				take(b)
			}
		})
	}
}

// decodeBans reads a view.BanList however it is written.
func decodeBans(d *json.Decoder, take func(b *view.Ban)) error {
	if err := expect(d, json.Delim('{')); err != nil {
		return err
	}
	for d.More() {
		switch key, err := d.Token(); {
		case err != nil:
			return err
		case key != "bans":
			var other json.RawMessage
			if err := d.Decode(&other); err != nil {
				return err
			}
			continue
		}
		switch open, err := d.Token(); {
		case err != nil:
			return err
		case open == nil: // null
			continue
		case open != json.Delim('['):
			return fmt.Errorf("%v where a list should be", open)
		}
		for d.More() {
			var b view.Ban
			if err := d.Decode(&b); err != nil {
				return err
			}
			take(&b)
		}
		if err := expect(d, json.Delim(']')); err != nil {
			return err
		}
	}
	return expect(d, json.Delim('}')) // it was whole
}

// expect reads a token that has to be there.
func expect(d *json.Decoder, want json.Token) error {
	got, err := d.Token()
	if err == nil && got != want {
		err = fmt.Errorf("%v where %v should be", got, want)
	}
	return err
}
