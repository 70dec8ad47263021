package ja4_test

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/gateway/ja4"
)

// published is the worked example of JA4's description, in another order than it is
// hashed in and with GREASE in every list.
func published() *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		CipherSuites: []uint16{0x1a1a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035},
		Extensions: []uint16{0x2a2a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a,
			0x0015, 0xfafa},
		SupportedVersions: []uint16{0xbaba, tls.VersionTLS13, tls.VersionTLS12},
		SupportedProtos:   []string{"h2", "http/1.1"},
		SignatureSchemes:  []tls.SignatureScheme{0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601},
	}
}

func TestOf(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*tls.ClientHelloInfo)
		quic   bool
		want   string
	}{
		"published": {func(*tls.ClientHelloInfo) {}, false, "t13d1516h2_8daaf6152771_e5627efa2ab1"},
		"quic":      {func(*tls.ClientHelloInfo) {}, true, "q13d1516h2_8daaf6152771_e5627efa2ab1"},
		"published, without signature schemes": {
			func(h *tls.ClientHelloInfo) { h.SignatureSchemes = nil }, false, "t13d1516h2_8daaf6152771_6d807ffa2a79",
		},
		"nothing": {func(h *tls.ClientHelloInfo) { *h = tls.ClientHelloInfo{} }, false, "t00i000000_000000000000_000000000000"},
		"old": {
			func(h *tls.ClientHelloInfo) { h.SupportedVersions = []uint16{tls.VersionTLS10, tls.VersionTLS12} }, false,
			"t12d1516h2_8daaf6152771_e5627efa2ab1",
		},
		"too much": {func(h *tls.ClientHelloInfo) { h.CipherSuites = make([]uint16, 513) }, false, ""},
	} {
		h := published()
		test.change(h)
		if got := ja4.Of(h, test.quic); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
	many := published()
	many.CipherSuites = make([]uint16, 200)
	if got := ja4.Of(many, false); !strings.HasPrefix(got, "t13d9916h2_") {
		t.Errorf("200 ciphers: got %s, want them counted as 99", got)
	}
}

// The examples of JA4's description.
func TestProtocol(t *testing.T) {
	for protocol, want := range map[string]string{
		"h2": "h2", "http/1.1": "h1", "h": "hh", "": "00", "\xab": "ab", "\xab\xcd": "ad", "\x30\xab": "3b", "\x30\x31\xab\xcd": "3d", "\x30\xab\xcd\x31": "01",
	} {
		h := &tls.ClientHelloInfo{SupportedProtos: []string{"\x2a\x2a", protocol}}
		if got := ja4.Of(h, false)[8:10]; got != want {
			t.Errorf("%q: got %s, want %s", protocol, got, want)
		}
	}
}

func TestStable(t *testing.T) {
	first := published()
	resumed := published()
	resumed.Extensions = append(resumed.Extensions[:len(resumed.Extensions)-2], 0xfafa, 0x002a, 0x0029) // without padding
	if a, b := ja4.Of(first, false), ja4.Of(resumed, false); a == b {
		t.Errorf("both are %s, so there is nothing to make equal", a)
	}
	if a, b := ja4.Stable(first, false), ja4.Stable(resumed, false); a != b {
		t.Errorf("got %s and %s, want one", a, b)
	}
	other := published()
	other.Extensions = other.Extensions[2:]
	if a, b := ja4.Stable(first, false), ja4.Stable(other, false); a == b {
		t.Errorf("both are %s, want other extensions told apart", a)
	}
}

func BenchmarkStable(b *testing.B) {
	h := published()
	b.ReportAllocs()
	for b.Loop() {
		ja4.Stable(h, false)
	}
}
