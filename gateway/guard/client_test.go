package guard

import (
	"crypto/tls"
	"net/http/httptest"
	"testing"
)

func TestClientOf(t *testing.T) {
	r := httptest.NewRequest("POST", "https://chat.example.com/api/v1/login", nil)
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0")
	r.Header.Set("Accept-Language", "ja")
	r.TLS = new(tls.ConnectionState)
	const ja4 = "t13d1516h2_8daaf6152771_e5627efa2ab1"
	bare := clientOf(r, ja4)
	if bare.JA4 != ja4 || bare.Family != "firefox" || bare.Headers == "" || !bare.Incoherent {
		t.Errorf("got %+v, want an incoherent firefox: over TLS it sends Sec-Fetch-Mode", bare)
	}
	r.Header.Set("Sec-Fetch-Mode", "cors")
	if c := clientOf(r, ja4); c.Incoherent || c.Headers == bare.Headers {
		t.Errorf("got %+v, want a coherent firefox with other header fields", c)
	}
	r.Header.Del("Sec-Fetch-Mode")
	r.TLS = nil
	if c := clientOf(r, ""); c.Incoherent || c.JA4 != "" {
		t.Errorf("got %+v; in the clear it sends no Sec-Fetch-Mode", c)
	}
}
