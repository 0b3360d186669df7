//! Faults within the scripts: lines that are there, and what takes their place.

use crate::seeded_faults::SeededFault;

/// Script, line, and the line that takes its place.
type Change = (&'static str, &'static str, &'static str);

/// The script with the fault that is on.
pub fn put_into(script: &str, mut text: String) -> String {
    let fault = SeededFault::chosen();
    for (of, line, wrong) in fault.map_or(&[][..], changes) {
        if *of == script {
            text = changed(&text, line, wrong);
        }
    }
    text
}

fn changed(text: &str, line: &str, wrong: &str) -> String {
    assert!(text.matches(line).count() == 1, "not one line is `{line}`");
    text.replace(line, wrong)
}

fn changes(fault: SeededFault) -> &'static [Change] {
    match fault {
        SeededFault::RedisLocksExpire => &[
            (
                "admit",
                "  redis.call('MSET', unpack(writes))\n",
                "  redis.call('MSET', unpack(writes))\n\
                 for i = 1, w, 2 do\n\
                 if string.find(writes[i], ':key:') or string.find(writes[i], ':claim:') then\n\
                 redis.call('PEXPIRE', writes[i], 500)\nend\nend\n",
            ),
            (
                "admit",
                "redis.call('SET', key_record, cmsgpack.pack(id))",
                "redis.call('SET', key_record, cmsgpack.pack(id), 'PX', 500)",
            ),
            (
                "admit",
                "cmsgpack.pack(id, resubmissions, first_failed_at))",
                "cmsgpack.pack(id, resubmissions, first_failed_at), 'PX', 500)",
            ),
        ],
        SeededFault::RedisContentNotClaimed => &[
            (
                "admit",
                "      writes[w + 1], writes[w + 2] = claim, cmsgpack.pack(id, nil, nil)\n",
                "",
            ),
            (
                "admit",
                "    write_claim(fingerprint, id, resubmissions, first_failed_at)\n",
                "",
            ),
        ],
        SeededFault::RedisAdmissionNonceIgnored => &[
            (
                "admit",
                "if redis.call('EXISTS', task_record) == 1 then",
                "if false then",
            ),
            (
                "admit",
                "elseif (word == 'by-key' or word == 'by-content') and found.id == id then",
                "elseif false then",
            ),
        ],
        SeededFault::RedisQueuedApart => &[
            ("admit", "      enqueue_all(type, user, line)\n", ""),
            (
                "admit",
                "    enqueue({\n      id = id, seq = seq, user = user, type = type, priority = priority, ready_at = now, ageing = ageing, slot = slot,\n    })\n",
                "",
            ),
            (
                "admit",
                "elseif (word == 'by-key' or word == 'by-content') and found.id == id then\n",
                "elseif (word == 'by-key' or word == 'by-content') and found.id == id then\n    enqueue(found)\n",
            ),
        ],
        SeededFault::RedisLeaseNonceIgnored => &[(
            "lease",
            "local earlier = redis.call('GET', root .. 'leased:' .. nonce)",
            "local earlier = nil",
        )],
        SeededFault::RedisStaleTokenTaken => &[(
            "complete",
            "  elseif task.token ~= token then\n    return false\n",
            "",
        )],
        SeededFault::RedisSameTokenAgain => {
            const GROWS: &str = "math.max((task.token or 0) + 1, now)";
            &[("lease", GROWS, "task.token or 1")]
        }
        SeededFault::RedisLaterResultTaken => &[(
            "complete",
            "elseif not task.held then",
            "elseif not task.held and task.state ~= 'succeeded' then",
        )],
        SeededFault::RedisMarkNotLookedAt => {
            &[("admit", "if mark < mark_told then", "if false then")]
        }
        SeededFault::RedisMarkNotRaised => {
            &[("admit", "  mark = redis.call('INCR', mark_key)\n", "")]
        }
        _ => &[],
    }
}
