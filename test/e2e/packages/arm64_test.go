package packages

import (
	"encoding/binary"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

// TestARM64 runs the program of the arm64 packages, on an emulated processor: what
// it says is what that of amd64 says, to the byte, but for what changes anyway. (The emulator knows no bpf(2), so
// this is all that does not need it.)
func TestARM64(t *testing.T) {
	needLong(t)
	lab.NeedProgram(t, "qemu-aarch64-static", "qemu-user-static")
	dir := packages(t, version, "amd64 arm64")
	program := func(arch string) string {
		tree := t.TempDir()
		output(t, "/", "dpkg-deb", "-x", filepath.Join(dir, "portsentry_"+version+"_"+arch+".deb"), tree)
		return filepath.Join(tree, "usr/sbin/portsentry")
	}
	amd64, arm64 := program("amd64"), program("arm64")
	tape := filepath.Join(t.TempDir(), "scans.pcap")
	check(t, os.WriteFile(tape, scans(t), 0o644))
	config := filepath.Join("..", "..", "..", "packaging", "portsentry.conf")
	for _, args := range [][]string{
		{"--version"},
		{"--help"},
		{"nonsense"},
		{"check", "--configfile", config},
		{"completion", "bash"},
		{"replay", tape},
		{"replay", "--json", tape},
		{"replay", "--config", config, "--detect", "traps", tape},
	} {
		want, wantCode := said(t, append([]string{amd64}, args...)...)
		got, code := said(t, append([]string{"qemu-aarch64-static", arm64}, args...)...)
		if got != want || code != wantCode || want == "" {
			t.Errorf("%q: exit code %d, it says\n%s\namd64: %d\n%s", args, code, got, wantCode, want)
		}
		if args[0] == "replay" && !strings.Contains(want, "203.0.113.9") {
			t.Errorf("%q: no scan in\n%s", args, want)
		}
	}
}

// changing is what differs from run to run: times, and scores, which hang on the
// random keys of sketches.
var changing = regexp.MustCompile(`in [\d.]+ s, [\d,]+ packets/s|"score":[\d.]+`)

// said is what a program says without that.
func said(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return changing.ReplaceAllString(string(out), ""), cmd.ProcessState.ExitCode()
}

// scans is a capture of scans: TCP and UDP, IPv4 and IPv6, 60 ports each.
func scans(t *testing.T) []byte {
	t.Helper()
	u16, u32 := binary.LittleEndian.AppendUint16, binary.LittleEndian.AppendUint32
	file := u32(u32(u32(u32(u16(u16(u32(nil, 0xa1b2c3d4), 2), 4), 0), 0), 1<<16), 1) // link type 1: Ethernet
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	wire := &pktgen.Link{Src: []byte{2, 0, 0, 0, 0, 1}, Dst: []byte{2, 0, 0, 0, 0, 2}}
	for _, ends := range [][2]string{{"203.0.113.9", "198.51.100.10"}, {"2001:db8:9::9", "2001:db8:1::10"}} {
		for _, proto := range []uint8{pktgen.ProtoTCP, pktgen.ProtoUDP} {
			for port := range uint16(60) {
				at = at.Add(10 * time.Millisecond)
				p := pktgen.Packet{
					Src: netip.MustParseAddr(ends[0]), Dst: netip.MustParseAddr(ends[1]), Proto: proto,
					SrcPort: 40000 + port, DstPort: 1 + port, Seq: 7, Window: 1024,
				}
				if proto == pktgen.ProtoTCP {
					p.Flags = pktgen.SYN
				}
				frame, err := p.AppendTo(nil, wire)
				check(t, err)
				file = u32(u32(u32(u32(file, uint32(at.Unix())), uint32(at.Nanosecond()/1000)), uint32(len(frame))), uint32(len(frame)))
				file = append(file, frame...)
			}
		}
	}
	return file
}
