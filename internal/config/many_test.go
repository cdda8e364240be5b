package config

import (
	"strconv"
	"strings"
	"testing"
)

// TestManyPorts: 1.x took the first 64 entries of a list and dropped the rest.
func TestManyPorts(t *testing.T) {
	var list []string
	for p := 1; p <= 65535; p += 2 {
		list = append(list, strconv.Itoa(p))
	}
	c := mustParse(t, `TCP_PORTS="`+strings.Join(list[:10000], ",")+"\"\n")
	if n := c.TCPPorts.Count(); n != 10000 || !c.TCPPorts.Has(19999) || c.TCPPorts.Has(20000) {
		t.Errorf("%d ports of 10000", n)
	}
}
