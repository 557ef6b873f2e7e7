import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintWriter;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.WindowStore;

/**
 * The benchmark's view in Kafka Streams: count, sum, min and max by minute, region and action, in a windowed store.
 *
 * <p>usage: StreamsPeer BROKERS TOPIC STATE_DIR EVENTS ANSWER_FILE. With EVENTS "follow" it runs until it is killed and prints a line for
 * each update of the store: "MINUTE,REGION,ACTION,COUNT".
 */
public class StreamsPeer {
    static final ObjectMapper JSON = new ObjectMapper();

    /** The time of an event. */
    public static class EventTime implements TimestampExtractor {
        @Override
        public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
            return Instant.parse(((JsonNode) record.value()).get("time").textValue()).toEpochMilli();
        }
    }

    static org.apache.kafka.common.serialization.Serde<JsonNode> json() {
        return Serdes.serdeFrom(
            (topic, node) -> {
                try {
                    return JSON.writeValueAsBytes(node);
                } catch (Exception error) {
                    throw new RuntimeException(error);
                }
            },
            (topic, bytes) -> {
                try {
                    return JSON.readTree(bytes);
                } catch (Exception error) {
                    throw new RuntimeException(error);
                }
            });
    }

    static byte[] state(long count, long sum, long min, long max) {
        return ByteBuffer.allocate(32).putLong(count).putLong(sum).putLong(min).putLong(max).array();
    }

    public static void main(String[] a) throws Exception {
        boolean follow = a[3].equals("follow");
        long expected = follow ? Long.MAX_VALUE : Long.parseLong(a[3]);
        Properties p = new Properties();
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, "peer-" + a[1] + "-" + ProcessHandle.current().pid());
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, a[0]);
        p.put(StreamsConfig.STATE_DIR_CONFIG, a[2]);
        p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        p.put(StreamsConfig.DEFAULT_TIMESTAMP_EXTRACTOR_CLASS_CONFIG, EventTime.class);
        p.put("compression.type", "lz4");
        p.put("auto.offset.reset", "earliest");
        if (follow) {
            p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        }
        AtomicLong seen = new AtomicLong();
        CountDownLatch done = new CountDownLatch(1);
        StreamsBuilder b = new StreamsBuilder();
        var table = b.stream(a[1], Consumed.with(Serdes.ByteArray(), json()))
            .map((k, v) -> KeyValue.pair(v.get("region").textValue() + "," + v.get("action").textValue(), v.get("amount").longValue()))
            // The key changes, so Kafka Streams sends the rows through a topic of its own; only key and amount go there.
            .groupByKey(Grouped.with("by-key", Serdes.String(), Serdes.Long()))
            .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMinutes(1), Duration.ofDays(3)))
            .aggregate(
                () -> state(0, 0, Long.MAX_VALUE, Long.MIN_VALUE),
                (key, amount, bytes) -> {
                    ByteBuffer s = ByteBuffer.wrap(bytes);
                    byte[] next = state(s.getLong() + 1, s.getLong() + amount, Math.min(s.getLong(), amount), Math.max(s.getLong(), amount));
                    if (seen.incrementAndGet() == expected) {
                        done.countDown();
                    }
                    return next;
                },
                Materialized.<String, byte[], WindowStore<Bytes, byte[]>>as("view")
                    .withKeySerde(Serdes.String())
                    .withValueSerde(Serdes.ByteArray())
                    .withRetention(Duration.ofDays(4)));
        if (follow) {
            table.toStream().foreach((k, v) -> {
                System.out.println(k.window().start() + "," + k.key() + "," + ByteBuffer.wrap(v).getLong());
                System.out.flush();
            });
        }
        KafkaStreams s = new KafkaStreams(b.build(), p);
        s.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            System.exit(1);
            return null;
        });
        s.start();
        done.await();
        var view = s.store(StoreQueryParameters.fromNameAndType("view", QueryableStoreTypes.<String, byte[]>windowStore()));
        try (PrintWriter out = new PrintWriter(a[4]); var all = view.all()) {
            while (all.hasNext()) {
                var row = all.next();
                ByteBuffer v = ByteBuffer.wrap(row.value);
                out.println(row.key.window().start() + "," + row.key.key() + "," + v.getLong() + "," + v.getLong() + "," + v.getLong() + "," + v.getLong());
            }
        }
        s.close(Duration.ofSeconds(10));
        System.exit(0);
    }
}
