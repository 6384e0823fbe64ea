-- Serval for Wireshark and tshark: IP protocol 144 or UDP port 54325, the SAL header, its extensions, then Wireshark's
-- own TCP or UDP.
--
--     tshark -X lua_script:serval_node/capture/serval.lua -r capture.pcap
--
-- The fields are those of the scapy layer (dissector.py); docs/captures.md says how to use both.

local serval = Proto("serval", "Serval Service Access Layer")

local PROTOCOL_SERVAL = 144
local SERVER_PORT = 54325
local BARE_LENGTH = 12
local TYPES = { [0] = "PAD", [1] = "CONTROL", [2] = "SERVICE", [3] = "ADDRESS", [4] = "SOURCE" }
local PROTOCOLS = { [6] = "TCP", [17] = "UDP" }
local MARK = 0x5a

local f = {
  src_flow = ProtoField.uint32("serval.src_flow", "Source flowID"),
  dst_flow = ProtoField.uint32("serval.dst_flow", "Destination flowID"),
  words = ProtoField.uint8("serval.words", "Header length in words"),
  protocol = ProtoField.uint8("serval.protocol", "Protocol", base.DEC, PROTOCOLS),
  checksum = ProtoField.uint16("serval.checksum", "Checksum", base.HEX),
  checksum_status = ProtoField.string("serval.checksum_status", "Checksum status"),
  segment_status = ProtoField.string("serval.segment_status", "Segment checksum status"),
  unknown = ProtoField.bytes("serval.unknown", "No known extension"),

  pad_type = ProtoField.uint8("serval.pad.type", "Type", base.DEC, TYPES, 0xf0),
  pad_reserved = ProtoField.uint8("serval.pad.reserved", "Reserved", base.HEX, nil, 0x0f),

  control_type = ProtoField.uint8("serval.control.type", "Type", base.DEC, TYPES, 0xf0),
  control_reserved = ProtoField.uint8("serval.control.reserved", "Reserved", base.HEX, nil, 0x0f),
  control_length = ProtoField.uint8("serval.control.length", "Length"),
  control_flags = ProtoField.uint8("serval.control.flags", "Flags", base.HEX),
  control_mark = ProtoField.uint8("serval.control.mark", "Mark", base.HEX),
  control_verno = ProtoField.uint32("serval.control.verno", "Verno"),
  control_ackno = ProtoField.uint32("serval.control.ackno", "Ackno"),
  control_nonce = ProtoField.bytes("serval.control.nonce", "Nonce"),

  service_type = ProtoField.uint8("serval.service.type", "Type", base.DEC, TYPES, 0xf0),
  service_reserved = ProtoField.uint8("serval.service.reserved", "Reserved", base.HEX, nil, 0x0f),
  service_length = ProtoField.uint8("serval.service.length", "Length"),
  service_reserved2 = ProtoField.uint16("serval.service.reserved2", "Reserved", base.HEX),
  service_service_id = ProtoField.bytes("serval.service.service_id", "ServiceID"),

  addresses_type = ProtoField.uint8("serval.addresses.type", "Type", base.DEC, TYPES, 0xf0),
  addresses_reserved = ProtoField.uint8("serval.addresses.reserved", "Reserved", base.HEX, nil, 0x0f),
  addresses_length = ProtoField.uint8("serval.addresses.length", "Length"),
  addresses_reserved2 = ProtoField.uint16("serval.addresses.reserved2", "Reserved", base.HEX),
  addresses_verno = ProtoField.uint32("serval.addresses.verno", "Verno"),
  addresses_ackno = ProtoField.uint32("serval.addresses.ackno", "Ackno"),
  addresses_addresses = ProtoField.ipv4("serval.addresses.addresses", "Address"),

  source_type = ProtoField.uint8("serval.source.type", "Type", base.DEC, TYPES, 0xf0),
  source_reserved = ProtoField.uint8("serval.source.reserved", "Reserved", base.HEX, nil, 0x0f),
  source_length = ProtoField.uint8("serval.source.length", "Length"),
  source_reserved2 = ProtoField.uint16("serval.source.reserved2", "Reserved", base.HEX),
  source_addresses = ProtoField.ipv4("serval.source.addresses", "Address"),
}
-- The highest bit first, as they are drawn.
local FLAGS = { { "SYN", 0x80 }, { "RSYN", 0x40 }, { "ACK", 0x20 }, { "NACK", 0x10 }, { "RST", 0x08 }, { "FIN", 0x04 } }
for _, flag in ipairs(FLAGS) do
  local name = flag[1]:lower()
  f["control_flags_" .. name] = ProtoField.bool("serval.control.flags." .. name, flag[1], 8, nil, flag[2])
end
serval.fields = f

local bad_checksum = ProtoExpert.new(
  "serval.bad_checksum", "Bad checksum", expert.group.CHECKSUM, expert.severity.ERROR)
local malformed = ProtoExpert.new(
  "serval.malformed", "No extension that a node accepts", expert.group.MALFORMED, expert.severity.ERROR)
serval.experts = { bad_checksum, malformed }

local ip_src, ip_dst, udp_port = Field.new("ip.src"), Field.new("ip.dst"), Field.new("udp.port")

-- The sum of the 16-bit words of a range; an odd last byte is the high byte of a word.
local function words_sum(range)
  local bytes, total = range:bytes(), 0
  local length = bytes:len()
  for index = 0, length - 2, 2 do
    total = total + bytes:get_index(index) * 256 + bytes:get_index(index + 1)
  end
  if length % 2 == 1 then total = total + bytes:get_index(length - 1) * 256 end
  return total
end

-- The last one: a packet inside an ICMP error has two IP headers, and ours is in the inner one.
local function address_sum(field)
  local found = { field() }
  return #found > 0 and words_sum(found[#found].range) or nil
end

local function header_status(tvb, length)
  if length < BARE_LENGTH then return "bad" end
  if length > tvb:captured_len() then return "cut" end
  return words_sum(tvb(0, length)) % 65535 == 0 and "ok" or "bad"
end

local function segment_status(tvb, length, protocol)
  if tvb:captured_len() < tvb:reported_len() or length > tvb:captured_len() then return "cut" end
  local rest = tvb:captured_len() - length
  if length < BARE_LENGTH or rest == 0 or not PROTOCOLS[protocol] then return "none" end
  if rest < (protocol == 6 and 20 or 8) then return "bad" end
  if protocol == 17 and tvb(length + 6, 2):uint() == 0 then return "none" end
  local source, destination = address_sum(ip_src), address_sum(ip_dst)
  if not source or not destination then return "none" end
  if (words_sum(tvb(length, rest)) + source + destination + protocol + rest) % 65535 == 0 then return "ok" end
  if not udp_port() then return "bad" end
  -- Inside UDP: many segments that the kernel passes on as one datagram, or one for the addresses before a NAT.
  local header = tvb(0, BARE_LENGTH):bytes():raw()
  local again = length == BARE_LENGTH and tvb(length, rest):bytes():raw():find(header, 1, true)
  return again and "joined" or "nat"
end

local function add_status(tree, field, status)
  local item = tree:add(field, status):set_generated()
  if status == "bad" then item:add_proto_expert_info(bad_checksum) end
end

local function add_common(tree, name, part)
  tree:add(f[name .. "_type"], part(0, 1))
  tree:add(f[name .. "_reserved"], part(0, 1))
  if name ~= "pad" then tree:add(f[name .. "_length"], part(1, 1)) end
end

local function add_addresses(tree, field, part, offset)
  local texts = {}
  for at = offset, part:len() - 4, 4 do
    tree:add(field, part(at, 4))
    texts[#texts + 1] = tostring(part(at, 4):ipv4())
  end
  return table.concat(texts, ", ")
end

-- Each shows one extension and returns what the packet list says of it.
local show = {
  pad = function() return nil end,
  control = function(tree, part)
    local item, names = tree:add(f.control_flags, part(2, 1)), {}
    for _, flag in ipairs(FLAGS) do
      item:add(f["control_flags_" .. flag[1]:lower()], part(2, 1))
      if math.floor(part(2, 1):uint() / flag[2]) % 2 == 1 then names[#names + 1] = flag[1] end
    end
    tree:add(f.control_mark, part(3, 1))
    tree:add(f.control_verno, part(4, 4))
    tree:add(f.control_ackno, part(8, 4))
    tree:add(f.control_nonce, part(12, 8))
    local marked = part(3, 1):uint() == MARK and " marked" or ""
    return table.concat(names, "+") .. " v=" .. part(4, 4):uint() .. " a=" .. part(8, 4):uint() .. marked
  end,
  service = function(tree, part)
    tree:add(f.service_reserved2, part(2, 2))
    tree:add(f.service_service_id, part(4, 32))
    local text = part(4, 32):bytes():tohex(true):gsub("0+$", "")
    if #text % 2 == 1 then text = text .. "0" end
    return "service 0x" .. (#text > 0 and text or "00")
  end,
  addresses = function(tree, part)
    tree:add(f.addresses_reserved2, part(2, 2))
    tree:add(f.addresses_verno, part(4, 4))
    tree:add(f.addresses_ackno, part(8, 4))
    return "addresses " .. add_addresses(tree, f.addresses_addresses, part, 12)
  end,
  source = function(tree, part)
    tree:add(f.source_reserved2, part(2, 2))
    return "source " .. add_addresses(tree, f.source_addresses, part, 4)
  end,
}
-- By type: name of the fields, the shortest length, and whether addresses may follow.
local KINDS = {
  [0] = { "pad", 1, false }, { "control", 20, false }, { "service", 36, false }, { "addresses", 12, true },
  { "source", 4, true },
}

-- Length of the extension at offset and its kind; nil for what no node would accept.
local function extension_at(tvb, offset, stop)
  local number = math.floor(tvb(offset, 1):uint() / 16)
  local kind = KINDS[number]
  if not kind then return nil end
  if number == 0 then return 1, kind end
  local length = offset + 1 < stop and tvb(offset + 1, 1):uint() or 0
  local more = length - kind[2]
  if more < 0 or offset + length > stop or more % 4 ~= 0 or (more > 0 and not kind[3]) then return nil end
  return length, kind
end

local function add_extensions(tvb, tree, stop)
  local texts, offset = {}, BARE_LENGTH
  while offset < stop do
    local length, kind = extension_at(tvb, offset, stop)
    if not length then
      tree:add(f.unknown, tvb(offset, stop - offset)):add_proto_expert_info(malformed)
      texts[#texts + 1] = (stop - offset) .. " bytes of no known extension"
      break
    end
    local part = tvb(offset, length)
    local branch = tree:add(serval, part, "SAL " .. TYPES[math.floor(part(0, 1):uint() / 16)])
    add_common(branch, kind[1], part)
    texts[#texts + 1] = show[kind[1]](branch, part)
    offset = offset + length
  end
  return table.concat(texts, "; ")
end

function serval.dissector(tvb, pinfo, root)
  if tvb:captured_len() < BARE_LENGTH then return 0 end
  local length, protocol = tvb(8, 1):uint() * 4, tvb(9, 1):uint()
  local stop = math.min(length, tvb:captured_len())
  local tree = root:add(serval, tvb(0, math.max(stop, BARE_LENGTH)))
  tree:add(f.src_flow, tvb(0, 4))
  tree:add(f.dst_flow, tvb(4, 4))
  tree:add(f.words, tvb(8, 1))
  tree:add(f.protocol, tvb(9, 1))
  tree:add(f.checksum, tvb(10, 2))
  add_status(tree, f.checksum_status, header_status(tvb, length))
  add_status(tree, f.segment_status, segment_status(tvb, length, protocol))
  local what = add_extensions(tvb, tree, stop)
  local text = string.format("SAL 0x%x > 0x%x", tvb(0, 4):uint(), tvb(4, 4):uint())
  if #what > 0 then text = text .. ": " .. what end
  tree:append_text(", " .. text)
  if length >= BARE_LENGTH and length < tvb:captured_len() then
    local transport = DissectorTable.get("ip.proto"):get_dissector(protocol) or Dissector.get("data")
    -- A cut or malformed segment is shown as such by its own dissector; without pcall it would be our error too.
    pcall(transport.call, transport, tvb(length):tvb(), pinfo, root)
  end
  -- Behind the call, because TCP and UDP write these two themselves.
  local carried = PROTOCOLS[protocol] and length < tvb:captured_len() and (" / " .. PROTOCOLS[protocol]) or ""
  pinfo.cols.protocol:set("SERVAL")
  pinfo.cols.info:prepend(text .. carried .. "  ")
  return tvb:captured_len()
end

DissectorTable.get("ip.proto"):add(PROTOCOL_SERVAL, serval)
-- A NAT changes the client's port, never the server's.
DissectorTable.get("udp.port"):add(SERVER_PORT, serval)
