package metrics

import (
	"bytes"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	Write(&b, []Family{
		One("portsentry_frames_total", "Frames that passed.", Counter, math.MaxUint32*1000),
		{Name: "portsentry_nothing", Help: "Left out."},
		{Name: "portsentry_bans", Help: "Bans,\nby \\ \"how\" \xff.", Samples: []Sample{
			{[]Label{{"strength", "soft"}, {"evidence", "E1"}}, 3},
			{[]Label{{"strength", "a\"b\\c\nd\xff"}}, 0.25},
		}},
	})
	want := `# HELP portsentry_frames_total Frames that passed.
# TYPE portsentry_frames_total counter
portsentry_frames_total 4294967295000
# HELP portsentry_bans Bans,\nby \\ "how" ` + "\ufffd" + `.
# TYPE portsentry_bans gauge
portsentry_bans{strength="soft",evidence="E1"} 3
portsentry_bans{strength="a\"b\\c\nd` + "\ufffd" + `"} 0.25
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
