package mail

// terms are the words for members of closed sets.
var terms = map[string]map[string]string{
	// scopes
	"address":     {"en": "address", "ja": "アドレス"},
	"network":     {"en": "network", "ja": "ネットワーク"},
	"asn":         {"en": "autonomous system", "ja": "AS番号"},
	"country":     {"en": "country", "ja": "国"},
	"account":     {"en": "account", "ja": "アカウント"},
	"session":     {"en": "session", "ja": "セッション"},
	"device":      {"en": "device", "ja": "端末"},
	"credential":  {"en": "credential", "ja": "認証情報"},
	"fingerprint": {"en": "client program", "ja": "クライアントの種類"},
	// actions
	"allow":   {"en": "let in", "ja": "許可"},
	"delay":   {"en": "slow down", "ja": "遅延"},
	"step_up": {"en": "ask for more proof", "ja": "追加の確認"},
	"refuse":  {"en": "refuse", "ja": "拒否"},
	"deceive": {"en": "answer as if it had failed", "ja": "失敗を装う"},
	// origins
	"rule":     {"en": "a rule", "ja": "ルール"},
	"operator": {"en": "an operator", "ja": "運用担当者"},
	"playbook": {"en": "a playbook", "ja": "プレイブック"},
	// modes
	"enforce": {"en": "in force", "ja": "適用中"},
	"shadow":  {"en": "only watching", "ja": "観察のみ"},
	// factors
	"passkey":      {"en": "a passkey", "ja": "パスキー"},
	"security_key": {"en": "a security key", "ja": "セキュリティキー"},
	"key":          {"en": "a passkey or security key", "ja": "パスキーまたはセキュリティキー"},
	"totp":         {"en": "an authenticator app", "ja": "認証アプリ"},
	"recovery":     {"en": "recovery codes", "ja": "リカバリーコード"},
	// what digests count
	"decision.registered":  {"en": "new decisions", "ja": "新しい判定"},
	"decision.extended":    {"en": "extended decisions", "ja": "延長された判定"},
	"decision.lifted":      {"en": "lifted decisions", "ja": "取り消された判定"},
	"decision.expired":     {"en": "expired decisions", "ja": "期限切れの判定"},
	"factor.added":         {"en": "second factors that were added", "ja": "二要素認証の追加"},
	"factor.removed":       {"en": "second factors that were removed", "ja": "二要素認証の削除"},
	"factor.disabled":      {"en": "second factors that were locked", "ja": "二要素認証のロック"},
	"factor.guessed":       {"en": "series of wrong answers for second factors", "ja": "二要素認証での連続した誤り"},
	"factor.suspended":     {"en": "second factors that were switched off", "ja": "二要素認証の停止"},
	"factor.enabled":       {"en": "second factors that were switched on again", "ja": "二要素認証の再開"},
	"key.cloned":           {"en": "keys that may have been copied", "ja": "複製された可能性のあるキー"},
	"recovery.used":        {"en": "recovery codes that were used", "ja": "リカバリーコードの使用"},
	"recovery.replaced":    {"en": "recovery codes that were replaced", "ja": "リカバリーコードの再発行"},
	"recovery.begun":       {"en": "requests to replace second factors", "ja": "二要素認証の再設定の申請"},
	"recovery.ready":       {"en": "codes to replace second factors", "ja": "二要素認証を再設定するコード"},
	"recovery.cancelled":   {"en": "stopped replacements of second factors", "ja": "止められた二要素認証の再設定"},
	"device.new":           {"en": "sign-ins from new devices", "ja": "新しい端末からのログイン"},
	"password.stolen-pair": {"en": "stopped sign-ins with the right password", "ja": "正しいパスワードで試みられ、止められたログイン"},
	"signin.unanswered":    {"en": "sign-ins that were not finished", "ja": "完了しなかったログイン"},
	"signin.denied":        {"en": "sign-ins that were stopped", "ja": "止められたログイン"},
	"sessions.ended":       {"en": "ended sessions", "ja": "終了したセッション"},
	"confirmation.code":    {"en": "codes for signing in", "ja": "ログイン用の確認コード"},
	"enrolment.link":       {"en": "links to add a second step", "ja": "二要素認証の登録リンク"},
	"enrolment.code":       {"en": "codes to add a second step", "ja": "二要素認証の登録コード"},
}
