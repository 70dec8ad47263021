// Package ja4 tells TLS client programs apart by how they begin a handshake.
//
// [Of] is JA4 as FoxIO published it (technical_details/JA4.md, BSD-3-Clause; the
// other members of the JA4+ family have another licence and are not here), for
// looking a client up in lists of others. [Stable] is the same without what depends
// on whether and how a session is resumed, for telling whether a client is one that
// was here before: with crypto/tls, OpenSSL (curl) and Chromium the first handshake
// and those that resume its session give the same text, where [Of] does not.
//
// Both begin with the transport, "t" or "q", and that is not made equal: a browser
// that goes from HTTP/2 to HTTP/3 offers other ciphers and extensions as well, so a
// browser has two fingerprints, one for each, whatever the letter says.
//
// A fingerprint is of a program and its version, not of a person, and is easily
// copied: it is evidence among other evidence, and never a reason by itself.
package ja4

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"slices"
	"strconv"
)

// maxValues bounds each list of a hello. Programs send some twenty values.
const maxValues = 512

const (
	extServerName   = 0x0000
	extALPN         = 0x0010
	extPadding      = 0x0015
	extPreSharedKey = 0x0029
	extEarlyData    = 0x002a
)

// Of is the JA4 of a hello that came over QUIC or TCP, such as
// "t13d1516h2_8daaf6152771_e5627efa2ab1"; empty for a hello with more than 512
// ciphers, extensions, versions or signature schemes, which no program sends.
func Of(h *tls.ClientHelloInfo, quic bool) string { return fingerprint(h, quic, nil) }

// Stable is [Of] as if the hello had no pre_shared_key (41), early_data (42) and
// padding (21): the first two are there when a session is resumed, and the last
// depends on how long the others are. session_ticket (35) and
// psk_key_exchange_modes (45) stay, since programs that resume send them in every
// hello. It changes when a program is told not to resume sessions at all.
func Stable(h *tls.ClientHelloInfo, quic bool) string {
	return fingerprint(h, quic, []uint16{extPadding, extPreSharedKey, extEarlyData})
}

func fingerprint(h *tls.ClientHelloInfo, quic bool, without []uint16) string {
	if max(len(h.CipherSuites), len(h.Extensions), len(h.SupportedVersions), len(h.SignatureSchemes)) > maxValues {
		return ""
	}
	ciphers := kept(h.CipherSuites, nil)
	extensions := kept(h.Extensions, without)
	out := make([]byte, 0, 36)
	transport, name := byte('t'), byte('i')
	if quic {
		transport = 'q'
	}
	if slices.Contains(extensions, extServerName) {
		name = 'd'
	}
	out = append(append(append(out, transport), version(h.SupportedVersions)...), name)
	out = append(append(out, count(len(ciphers))...), count(len(extensions))...)
	out = append(out, protocol(h.SupportedProtos)...)

	slices.Sort(ciphers)
	out = append(append(out, '_'), digest(list(nil, ciphers))...)

	extensions = slices.DeleteFunc(extensions, func(v uint16) bool { return v == extServerName || v == extALPN })
	slices.Sort(extensions)
	text := list(nil, extensions)
	schemes := make([]uint16, len(h.SignatureSchemes))
	for i, s := range h.SignatureSchemes {
		schemes[i] = uint16(s)
	}
	if schemes = kept(schemes, nil); len(schemes) > 0 && len(text) > 0 {
		text = list(append(text, '_'), schemes)
	}
	return string(append(append(out, '_'), digest(text)...))
}

// GREASE reports whether v is one of the values that clients send so that servers
// stay used to values they do not know (RFC 8701).
func GREASE(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// kept copies values but GREASE and those of without.
func kept(values, without []uint16) []uint16 {
	out := make([]uint16, 0, len(values))
	for _, v := range values {
		if !GREASE(v) && !slices.Contains(without, v) {
			out = append(out, v)
		}
	}
	return out
}

// version is the highest offered.
func version(offered []uint16) string {
	highest := uint16(0)
	for _, v := range offered {
		if !GREASE(v) {
			highest = max(highest, v)
		}
	}
	switch highest {
	case tls.VersionTLS13:
		return "13"
	case tls.VersionTLS12:
		return "12"
	case tls.VersionTLS11:
		return "11"
	case tls.VersionTLS10:
		return "10"
	case 0x0300:
		return "s3"
	case 0x0002:
		return "s2"
	}
	return "00"
}

// count is n in two digits; 99 stands for all that is more.
func count(n int) string {
	n = min(n, 99)
	if n < 10 {
		return "0" + strconv.Itoa(n)
	}
	return strconv.Itoa(n)
}

// protocol is the first and the last character of the first protocol that is
// offered in ALPN, of its text or, where either is no letter or digit, of its hex.
func protocol(offered []string) string {
	for _, p := range offered {
		if p == "" || len(p) == 2 && GREASE(uint16(p[0])<<8|uint16(p[1])) {
			continue
		}
		if !alphanumeric(p[0]) || !alphanumeric(p[len(p)-1]) {
			p = hex.EncodeToString([]byte(p))
		}
		return string([]byte{p[0], p[len(p)-1]})
	}
	return "00"
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// list appends values in hex of four digits, with commas between them.
func list(text []byte, values []uint16) []byte {
	for i, v := range values {
		if i > 0 {
			text = append(text, ',')
		}
		text = hex.AppendEncode(text, []byte{byte(v >> 8), byte(v)})
	}
	return text
}

// digest is the first 12 hex digits of the SHA-256 of text, zeros where there is none.
func digest(text []byte) string {
	if len(text) == 0 {
		return "000000000000"
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6])
}
