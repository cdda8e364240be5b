package machines_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/test/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// patience with a machine that does other things too.
const patience = 20 * time.Second

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ask gets a page of a daemon from within ns. Nobody there has the status 0.
func ask(t *testing.T, ns *pktgen.NS, network, address, path string) (status int, body string) {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (c net.Conn, err error) {
			err = ns.Do(func() error {
				c, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, address)
				return err
			})
			return c, err
		},
	}}
	resp, err := client.Get("http://portsentry" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp.StatusCode, string(all)
}

// samples reads the text format: numbers by name and labels, as they stand there.
func samples(t *testing.T, text string) map[string]float64 {
	t.Helper()
	out := make(map[string]float64)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		if at < 0 {
			t.Fatalf("no sample: %q", line)
		}
		v, err := strconv.ParseFloat(line[at+1:], 64)
		check(t, err)
		if _, twice := out[line[:at]]; twice {
			t.Errorf("%s is there twice", line[:at])
		}
		out[line[:at]] = v
	}
	return out
}

// syn is a bare SYN from the scanner to a port of the host.
func syn(l *lab.Lab, port int) pktgen.Packet {
	return pktgen.Packet{
		Src: l.Scanner.Addr4(), Dst: l.Host.Addr4(), Proto: pktgen.ProtoTCP,
		SrcPort: 40000, DstPort: uint16(port), Flags: pktgen.SYN, Seq: 7, Window: 1024,
	}
}

func sender(t *testing.T, e *pktgen.End) *pktgen.Sender {
	t.Helper()
	s, err := e.Sender()
	check(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}
