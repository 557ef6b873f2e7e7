import java.io.PrintWriter;
import java.time.Instant;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;
import org.apache.flink.types.Row;
import org.apache.flink.util.CloseableIterator;

/**
 * The benchmark's view in Flink SQL: count, sum, min and max by minute, region and action.
 *
 * <p>usage: FlinkPeer BROKERS TOPIC EVENTS|follow ANSWER_FILE. With a number of events it reads the topic to its end and writes the answer;
 * with "follow" it runs until it is killed and prints a line for each update: "MINUTE,REGION,ACTION,COUNT".
 */
public class FlinkPeer {
    public static void main(String[] a) throws Exception {
        boolean follow = a[2].equals("follow");
        Configuration c = new Configuration();
        c.setString("parallelism.default", "1");
        c.setString("pipeline.object-reuse", "true");
        c.setString("table.local-time-zone", "UTC");
        c.setString("taskmanager.memory.network.min", "32m");
        c.setString("taskmanager.memory.network.max", "32m");
        c.setString("taskmanager.memory.managed.size", "64m");
        if (follow) {
            // As quick as it can be: no checkpoints, buffers sent at once.
            c.setString("execution.buffer-timeout.interval", "0 ms");
        } else {
            c.setString("execution.checkpointing.interval", "10 s");
        }
        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment(c);
        StreamTableEnvironment t = StreamTableEnvironment.create(env);
        t.executeSql("CREATE TABLE events (`time` TIMESTAMP_LTZ(3), region STRING, action STRING, amount BIGINT,"
            + " WATERMARK FOR `time` AS `time` - INTERVAL '10' SECOND) WITH ("
            + "'connector'='kafka','topic'='" + a[1] + "','properties.bootstrap.servers'='" + a[0] + "',"
            + "'properties.group.id'='flink-" + a[1] + "','scan.startup.mode'='earliest-offset',"
            + (follow ? "" : "'scan.bounded.mode'='latest-offset',")
            + "'format'='json','json.timestamp-format.standard'='ISO-8601')");
        if (follow) {
            TableResult result = t.executeSql("SELECT FLOOR(`time` TO MINUTE), region, action, COUNT(*) FROM events"
                + " GROUP BY FLOOR(`time` TO MINUTE), region, action");
            try (CloseableIterator<Row> rows = result.collect()) {
                while (rows.hasNext()) {
                    Row row = rows.next();
                    System.out.println(millis(row.getField(0)) + "," + row.getField(1) + "," + row.getField(2) + "," + row.getField(3));
                    System.out.flush();
                }
            }
            return;
        }
        TableResult result = t.executeSql("SELECT window_start, region, action, COUNT(*), SUM(amount), MIN(amount), MAX(amount)"
            + " FROM TUMBLE(TABLE events, DESCRIPTOR(`time`), INTERVAL '1' MINUTE)"
            + " GROUP BY window_start, window_end, region, action");
        try (PrintWriter out = new PrintWriter(a[3]); CloseableIterator<Row> rows = result.collect()) {
            while (rows.hasNext()) {
                Row row = rows.next();
                out.print(((java.time.LocalDateTime) row.getField(0)).toInstant(java.time.ZoneOffset.UTC).toEpochMilli());
                for (int i = 1; i < 7; i++) {
                    out.print("," + row.getField(i));
                }
                out.println();
            }
        }
        System.exit(0);
    }

    static long millis(Object time) {
        return ((Instant) time).toEpochMilli();
    }
}
