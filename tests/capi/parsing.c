/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* The functions of two parsing_helpers.h beside each other, as rings.c does it: on random packets, most of them nearly
 * right, and at every length down to nothing, both must have the same answer, header and cursor.
 *
 * One difference is meant: headers that say they are shorter than their fixed part, which theirs takes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/types.h>

/* The answer, and how far into the packet the header and the cursor are; -1 for where there is none. */
struct parsed {
	int answer;
	long header;
	long cursor;
};

typedef struct parsed parser(char *packet, size_t length);

#ifdef TWIN
#include <xdp/parsing_helpers.h>

#define NAMED(twin) LIST_OF(twin)
#define LIST_OF(twin) parsers_of_##twin

#define PARSER(name, type) \
	static struct parsed name(char *packet, size_t length) \
	{ \
		struct hdr_cursor cursor = { .pos = packet }; \
		struct type *header = NULL; \
		int answer = parse_##name(&cursor, packet + length, &header); \
		long at = header ? (char *)header - packet : -1; \
\
		return (struct parsed){ answer, at, (char *)cursor.pos - packet }; \
	}

PARSER(ethhdr, ethhdr)
PARSER(iphdr, iphdr)
PARSER(ip6hdr, ipv6hdr)
PARSER(icmphdr, icmphdr)
PARSER(icmp6hdr, icmp6hdr)
PARSER(icmphdr_common, icmphdr_common)
PARSER(udphdr, udphdr)
PARSER(tcphdr, tcphdr)

/* 1.3 has no ARP. */
#ifdef ARPOP_REQUEST
PARSER(arphdr, arphdr)
#else
#define arphdr NULL
#endif

extern parser *const NAMED(TWIN)[];
parser *const NAMED(TWIN)[] = { ethhdr, iphdr, ip6hdr, icmphdr, icmp6hdr, icmphdr_common, udphdr, tcphdr, arphdr };

#else

extern parser *const parsers_of_ours[], *const parsers_of_theirs[];

enum { ETHERNET, IPV4, IPV6, ICMP, ICMPV6, ICMP_COMMON, UDP, TCP, ARP, PARSERS };
static const char *const names[] = { "ethhdr", "iphdr", "ip6hdr", "icmphdr", "icmp6hdr", "icmphdr_common", "udphdr",
				     "tcphdr", "arphdr" };

#define LONGEST 160

static __u64 random_state = 0x9e3779b97f4a7c15;

static unsigned int random_below(unsigned int limit)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 16) % limit;
}

/* A byte of the few that mean something. */
static char choice(const char *of, size_t count)
{
	return of[random_below(count)];
}

/* Random bytes, and where the parser looks for something, often that. */
static void make(int which, char *packet)
{
	static const char tags[][2] = { { '\x81', 0 }, { '\x88', '\xa8' }, { 8, 0 } };
	static const char extensions[] = { 0, 43, 44, 51, 60, (char)135, 6, 17, 59 };
	static const char arp[] = { 0, 1, 8, 0, 6, 4 };
	size_t i;

	for (i = 0; i < LONGEST; i++)
		packet[i] = random_below(256);
	switch (which) {
	case ETHERNET:
		for (i = 12; i < 12 + 4 * 8; i += 4)
			memcpy(packet + i, tags[random_below(3)], 2);
		break;
	case IPV6:
		packet[6] = choice(extensions, sizeof(extensions));
		for (i = 40; i < LONGEST; i += 4)
			packet[i] = choice(extensions, sizeof(extensions)), packet[i + 1] = random_below(3);
		break;
	case UDP:
		packet[4] = 0;
		break;
	case ARP:
		memcpy(packet, arp, random_below(4) ? sizeof(arp) : random_below(sizeof(arp)));
		break;
	}
}

static int is_too_short(int which, const char *packet, size_t length)
{
	if (which == IPV4)
		return length >= 20 && (packet[0] & 15) < 5;
	return which == TCP && length >= 20 && ((packet[12] >> 4) & 15) < 5;
}

static int compare(int which, char *packet, size_t length)
{
	struct parsed ours = parsers_of_ours[which](packet, length);
	struct parsed theirs = parsers_of_theirs[which](packet, length);

	if (is_too_short(which, packet, length))
		theirs = (struct parsed){ -1, -1, 0 };
	if (ours.answer == theirs.answer && ours.header == theirs.header && ours.cursor == theirs.cursor)
		return 0;
	fprintf(stderr, "%s of %zu bytes differs: %d, header at %ld, cursor at %ld; and theirs %d, %ld, %ld\n", names[which],
		length, ours.answer, ours.header, ours.cursor, theirs.answer, theirs.header, theirs.cursor);
	return 1;
}

int main(int argc, char **argv)
{
	size_t packets = argc > 1 ? strtoul(argv[1], NULL, 10) : 20000, i, length;
	char packet[LONGEST];
	int which, compared = 0;

	for (which = 0; which < PARSERS; which++) {
		if (!parsers_of_ours[which] || !parsers_of_theirs[which])
			continue;
		compared++;
		for (i = 0; i < packets; i++) {
			make(which, packet);
			for (length = 0; length <= LONGEST; length++)
				if (compare(which, packet, length))
					return 1;
		}
	}
	printf("%zu packets, %d functions: no difference\n", packets, compared);
	return 0;
}

#endif
